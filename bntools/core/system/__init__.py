"""What the machine and the interpreter are: threads, memory, sizes, number types, imports."""
