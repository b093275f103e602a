"""A file for each thing that can be asked over HTTP: `endpoint(gateway, request)` responds. None knows another."""
