"""The models: one folder per paper. Imports nothing here; the registry loads what is asked for."""
