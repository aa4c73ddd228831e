"""Install a runtime and weights: nothing here imports QGIS unless its docstring says so."""
