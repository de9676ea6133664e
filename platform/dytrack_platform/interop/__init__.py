"""Our tracker in other projects' toolkits."""
