"""Ray clusters: reach one, check it before work starts, end gently, submit jobs."""
