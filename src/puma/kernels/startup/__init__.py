"""How a process gets ready to compute: its kernels compiled, its threads counted. It must not know what is computed."""
