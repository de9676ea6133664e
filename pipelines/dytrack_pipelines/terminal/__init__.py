"""What a person sees and types: options, progress, tables, single sentences."""
