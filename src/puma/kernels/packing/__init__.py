"""Words as bits and bytes in registers. It must not know where the bytes go."""
