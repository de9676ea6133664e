"use strict";
// One page over the stream protocol: frames go out as JPEG, boxes come back and are drawn on the very
// frame that they are about.

const COLOURS = ["#2ecc71", "#f1c40f", "#e67e22", "#e74c3c", "#9b59b6", "#3498db"];
const LOST = "#8a8f94";
const SAMPLE = { url: "sample.webm", fps: 25, box: [311, 123, 50, 31] };
const LONGEST = 1280; // longest side of a frame that is sent
const AT_ONCE = { every: 1, realtime: 3 };
const $ = (name) => document.getElementById(name);
const view = $("view"), video = $("video"), pen = view.getContext("2d");

let exits = [], socket = null, running = false, source = null;
let targets = new Map(); // id -> box of the user, before tracking
let drawn = null; // the box that is being drawn
let shown = null; // the frame on the canvas
let waiting = new Map(); // frame id -> what was sent
let history = [], results = [], number = 0, dropped = 0, stamps = [], nextName = 0;

function hint(text, wrong = false) { $("hint").textContent = text; $("hint").classList.toggle("wrong", wrong); }
function colour(row) {
  if (row.state === "lost") return LOST;
  const index = exits.indexOf(row.exit);
  return COLOURS[(index < 0 ? 0 : index) % COLOURS.length];
}

async function describe() {
  const token = $("token").value;
  const answer = await fetch("v1/model", token ? { headers: { authorization: `Bearer ${token}` } } : {});
  if (answer.status === 401) {
    $("tokenbox").hidden = false;
    $("about").textContent = "this server asks for a token";
    return;
  }
  const about = await answer.json();
  const chosen = about.models.find((one) => one.name === $("model").value) || about;
  exits = chosen.exits;
  $("about").textContent = `${chosen.name} version ${chosen.version} · exits after blocks ${exits.join(", ")} · ${chosen.runtime} ${chosen.precision}`;
  fill($("model"), about.models.map((one) => one.name), chosen.name);
  const before = $("point").value || "balanced";
  fill($("point"), chosen.points, chosen.points.includes(before) ? before : "full");
  $("legend").replaceChildren("Colours: ");
  exits.forEach((depth, index) => swatch(COLOURS[index % COLOURS.length], `exit after block ${depth}`));
  swatch(LOST, "lost");
  document.body.dataset.ready = "yes";
}
function swatch(ink, text) {
  const square = document.createElement("span");
  square.className = "swatch";
  square.style.background = ink;
  $("legend").append(square, text);
}
function fill(list, names, chosen) {
  list.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
}

// Where pictures come from.
async function open(kind, file) {
  halt();
  if (video.srcObject) video.srcObject.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  video.removeAttribute("src");
  source = kind;
  document.body.dataset.source = "";
  forget();
  try {
    if (kind === "camera") {
      if (!navigator.mediaDevices) throw new Error("a browser gives its camera to https or localhost only");
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
      $("mode").value = "realtime";
    } else {
      video.src = kind === "sample" ? SAMPLE.url : URL.createObjectURL(file);
      $("mode").value = "every";
    }
    $("mode").disabled = kind === "camera";
    await once(video, "canplay", "error");
    if (kind === "camera") await video.play();
    while (video.readyState < 2 || !video.videoWidth) await new Promise((yes) => setTimeout(yes, 20));
  } catch (error) {
    hint(`This source does not open: ${error.message || "the browser cannot play it"}.`, true);
    return;
  }
  const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
  view.width = Math.round(video.videoWidth * scale);
  view.height = Math.round(video.videoHeight * scale);
  shown = await grab();
  drawn = kind === "sample" ? [...SAMPLE.box] : [view.width * 0.4, view.height * 0.4, view.width * 0.2, view.height * 0.2];
  hint("Draw a box around what to follow, or move the dashed one by the arrow keys and take it by Enter; then press Track.");
  document.body.dataset.source = kind;
  buttons();
  paint();
}
function once(node, good, bad) {
  return new Promise((yes, no) => {
    node.addEventListener(good, () => yes(), { once: true });
    node.addEventListener(bad, () => no(new Error("the browser cannot play it")), { once: true });
  });
}
function forget() {
  targets.clear();
  waiting.clear();
  history = []; results = []; stamps = []; number = 0; dropped = 0; nextName = 0;
  document.body.dataset.frames = "0";
  numbers({});
  line();
}

// Boxes.
function place(event) {
  const edge = view.getBoundingClientRect();
  const scale = Math.min(edge.width / view.width, edge.height / view.height);
  const left = edge.left + (edge.width - view.width * scale) / 2, top = edge.top + (edge.height - view.height * scale) / 2;
  return [Math.min(Math.max((event.clientX - left) / scale, 0), view.width), Math.min(Math.max((event.clientY - top) / scale, 0), view.height)];
}
let corner = null;
view.addEventListener("pointerdown", (event) => {
  if (!shown) return;
  corner = place(event);
  view.setPointerCapture(event.pointerId);
});
view.addEventListener("pointermove", (event) => {
  if (!corner) return;
  const [x, y] = place(event);
  drawn = [Math.min(x, corner[0]), Math.min(y, corner[1]), Math.abs(x - corner[0]), Math.abs(y - corner[1])];
  paint();
});
view.addEventListener("pointerup", () => {
  if (!corner) return;
  corner = null;
  if (drawn && drawn[2] >= 4 && drawn[3] >= 4) take(); else paint();
});
view.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (step && drawn) {
    const size = event.ctrlKey ? 1 : 8, at = event.shiftKey ? 2 : 0;
    drawn[at] += step[0] * size;
    drawn[at + 1] += step[1] * size;
    drawn[2] = Math.min(Math.max(4, drawn[2]), view.width);
    drawn[3] = Math.min(Math.max(4, drawn[3]), view.height);
    drawn[0] = Math.min(Math.max(0, drawn[0]), view.width - 4);
    drawn[1] = Math.min(Math.max(0, drawn[1]), view.height - 4);
    paint();
  } else if (event.key === "Enter" && drawn) take();
  else return;
  event.preventDefault();
});
function take() {
  const id = String.fromCharCode(97 + nextName % 26) + (nextName < 26 ? "" : nextName);
  nextName += 1;
  const box = drawn.map((value) => Math.round(value * 100) / 100);
  targets.set(id, { box });
  drawn = null;
  if (running) socket.send(JSON.stringify({ type: "add", targets: [{ id, box }] }));
  hint(`Target ${id} taken. Draw another, or press Track.`);
  buttons();
  paint();
}
function clearBoxes() {
  if (running && targets.size) socket.send(JSON.stringify({ type: "remove", ids: [...targets.keys()] }));
  targets.clear();
  buttons();
  paint();
}

// The stream.
async function go() {
  if (!targets.size && drawn) take();
  if (!targets.size || running) return;
  const token = $("token").value;
  const address = new URL("v1/track", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address, token ? ["dytrack.v1", `token.${token}`] : ["dytrack.v1"]);
  try {
    await once(socket, "open", "error");
  } catch {
    hint("The server refuses the connection: is it there, and is the token right?", true);
    $("tokenbox").hidden = false;
    return;
  }
  running = true;
  history = []; results = []; stamps = []; number = 0; dropped = 0;
  socket.onmessage = (event) => hear(JSON.parse(event.data));
  socket.onclose = () => { if (running) { halt(); hint("The server closed the stream.", true); } };
  socket.send(JSON.stringify({
    type: "start", mode: $("mode").value, point: $("point").value, model: $("model").value,
    targets: [...targets].map(([id, one]) => ({ id, box: one.box })),
  }));
  hint("Tracking. Draw more boxes while it runs, or change point and model.");
  buttons();
  pump();
}
async function pump() {
  const mine = socket, first = shown;
  await send(mine, first, video.currentTime);
  if ($("mode").value === "realtime") {
    if (source !== "camera") await video.play();
    const tick = async () => {
      if (mine !== socket || !running) return;
      if (waiting.size < AT_ONCE.realtime) await send(mine, await grab(), video.currentTime);
      if (video.ended) return finish();
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(tick); else setTimeout(tick, 40);
    };
    tick();
    return;
  }
  const step = 1 / (source === "sample" ? SAMPLE.fps : 30);
  while (mine === socket && running && video.currentTime + step < video.duration) {
    video.currentTime += step;
    await once(video, "seeked", "error");
    if (mine !== socket || !running) return;
    await send(mine, await grab(), video.currentTime);
    while (waiting.size >= AT_ONCE.every && mine === socket && running) await new Promise((yes) => { resume = yes; });
  }
  if (mine === socket && running) finish();
}
let resume = () => {};
const sheet = document.createElement("canvas");
function grab() { // through a canvas: a bitmap straight from a video fails while it seeks
  sheet.width = view.width;
  sheet.height = view.height;
  sheet.getContext("2d").drawImage(video, 0, 0, view.width, view.height);
  return createImageBitmap(sheet);
}
async function send(mine, picture, seconds) {
  sheet.width = view.width;
  sheet.height = view.height;
  sheet.getContext("2d").drawImage(picture, 0, 0);
  const blob = await new Promise((yes) => sheet.toBlob(yes, "image/jpeg", 0.92));
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const message = new Uint8Array(16 + bytes.length), header = new DataView(message.buffer);
  header.setBigUint64(0, BigInt(number), true);
  header.setFloat64(8, seconds, true);
  message.set(bytes, 16);
  if (mine.readyState !== WebSocket.OPEN) return;
  waiting.set(number, { picture, at: performance.now(), seconds });
  number += 1;
  mine.send(message);
}
function finish() {
  socket.send(JSON.stringify({ type: "stop" }));
  hint("The video is over.");
}
function halt() {
  running = false;
  video.pause();
  if (socket) { socket.onclose = null; socket.close(); }
  socket = null;
  waiting.clear();
  resume();
  buttons();
}
function hear(message) {
  if (message.type === "error") return hint(`${message.code}: ${message.message}`, true);
  if (message.type === "end") {
    if (message.reason !== "stopped") hint(`The stream ended: ${message.reason}.`, true);
    return halt();
  }
  if (message.type !== "result") return;
  const sent = waiting.get(message.frame);
  for (const old of [...waiting.keys()]) if (old <= message.frame) waiting.delete(old);
  dropped += message.dropped;
  const now = performance.now();
  stamps.push(now);
  while (stamps.length > 1 && now - stamps[0] > 2000) stamps.shift();
  if (sent) shown = sent.picture;
  for (const [id, row] of Object.entries(message.targets)) {
    if (!targets.has(id)) continue;
    targets.set(id, { box: row.box, row });
    results.push({ frame: message.frame, seconds: sent ? sent.seconds : null, target: id, ...row });
  }
  history.push(message.targets);
  document.body.dataset.frames = String(history.length);
  numbers(message.ms, sent ? now - sent.at : null);
  if (message.model && document.body.dataset.version !== message.model) {
    const known = document.body.dataset.version;
    document.body.dataset.version = message.model;
    if (known) describe();
  }
  paint();
  line();
  resume();
  $("csv").disabled = $("json").disabled = false;
}

// What is seen.
function paint() {
  pen.clearRect(0, 0, view.width, view.height);
  if (shown) pen.drawImage(shown, 0, 0, view.width, view.height);
  const scale = view.width / (view.clientWidth || view.width); // pixels of the frame for one on the screen
  const thick = Math.max(1, 2 * scale);
  pen.lineWidth = thick;
  pen.font = `600 ${14 * scale}px system-ui, sans-serif`;
  for (const [id, one] of targets) {
    const ink = one.row ? colour(one.row) : "#ffffff";
    pen.strokeStyle = "#000000";
    pen.lineWidth = thick * 2;
    pen.strokeRect(...one.box);
    pen.strokeStyle = ink;
    pen.lineWidth = thick;
    pen.strokeRect(...one.box);
    const said = one.row && one.row.exit ? ` exit ${one.row.exit} ${one.row.predicted_iou.toFixed(2)}${one.row.state === "tracking" ? "" : ` ${one.row.state}`}` : "";
    const text = id + said, up = one.box[1] > view.height * 0.08 ? one.box[1] - thick * 2 : one.box[1] + one.box[3] + 18 * scale;
    pen.lineWidth = thick * 1.5;
    pen.strokeStyle = "#000000";
    pen.strokeText(text, one.box[0], up);
    pen.fillStyle = ink;
    pen.fillText(text, one.box[0], up);
  }
  if (drawn) {
    pen.strokeStyle = "#000000";
    pen.lineWidth = thick;
    pen.strokeRect(...drawn);
    pen.setLineDash([6, 6]);
    pen.strokeStyle = "#ffffff";
    pen.strokeRect(...drawn);
    pen.setLineDash([]);
  }
  $("stage").classList.toggle("empty", !shown);
}
function line() {
  const canvas = $("line"), ink = canvas.getContext("2d"), style = getComputedStyle(document.body);
  canvas.width = canvas.clientWidth * devicePixelRatio || 960;
  canvas.height = 96 * devicePixelRatio;
  const width = canvas.width, height = canvas.height, wide = Math.max(2, Math.round(2 * devicePixelRatio));
  ink.clearRect(0, 0, width, height);
  const kept = history.slice(-Math.floor(width / wide)), low = height - 6 * devicePixelRatio;
  kept.forEach((rows, index) => {
    const row = Object.values(rows)[0];
    if (!row) return;
    const tall = low * (exits.indexOf(row.exit) + 1) / (exits.length || 1);
    ink.fillStyle = colour(row);
    ink.globalAlpha = 0.55;
    ink.fillRect(index * wide, low - tall, wide - 1, tall);
    ink.globalAlpha = 1;
    ink.fillStyle = { tracking: "#2ecc71", doubtful: "#e67e22", lost: LOST, "found again": "#3498db" }[row.state];
    ink.fillRect(index * wide, low + 2, wide, height - low);
  });
  ink.strokeStyle = style.color;
  ink.lineWidth = 1.5 * devicePixelRatio;
  ink.beginPath();
  kept.forEach((rows, index) => {
    const row = Object.values(rows)[0];
    if (row) ink.lineTo(index * wide + wide / 2, low * (1 - row.predicted_iou));
  });
  ink.stroke();
}
function numbers(ms, trip) {
  const show = (name, value) => { $(`n-${name}`).textContent = value === undefined || value === null ? "–" : value.toFixed(1); };
  $("n-frames").textContent = history.length;
  $("n-dropped").textContent = dropped;
  show("queue", ms.queue); show("decode", ms.decode); show("stages", ms.stages); show("trip", trip);
  const span = stamps.length > 1 ? (stamps[stamps.length - 1] - stamps[0]) / 1000 : 0;
  show("fps", span ? (stamps.length - 1) / span : null);
}
function buttons() {
  $("go").disabled = running || !shown || !(targets.size || drawn);
  $("stop").disabled = !running;
  $("clear").disabled = !targets.size;
}
function save(name, kind, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

$("sample").addEventListener("click", () => open("sample"));
$("camera").addEventListener("click", () => open("camera"));
$("file").addEventListener("change", (event) => { if (event.target.files[0]) open("file", event.target.files[0]); });
$("go").addEventListener("click", go);
$("stop").addEventListener("click", () => { halt(); hint("Stopped."); });
$("clear").addEventListener("click", clearBoxes);
$("token").addEventListener("change", describe);
$("point").addEventListener("change", () => { if (running) socket.send(JSON.stringify({ type: "point", point: $("point").value })); });
$("model").addEventListener("change", async () => {
  if (running) socket.send(JSON.stringify({ type: "model", model: $("model").value }));
  await describe();
});
$("csv").addEventListener("click", () => save("boxes.csv", "text/csv", ["frame,seconds,target,x,y,w,h,predicted_iou,exit,state",
  ...results.map((row) => [row.frame, row.seconds, row.target, ...row.box, row.predicted_iou, row.exit, row.state].join(","))].join("\n") + "\n"));
$("json").addEventListener("click", () => save("boxes.json", "application/json", JSON.stringify(results, null, 1)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", line);
addEventListener("resize", line);
describe().catch(() => { $("about").textContent = "the server does not answer"; });
line();
