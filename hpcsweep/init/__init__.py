"""From a training script that exists to a sweep file: reads the script, never runs it."""
