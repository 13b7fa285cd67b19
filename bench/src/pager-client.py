"""A process whose memory a pager fills, or is captured from: told on standard input what to do, it answers with how long that took.

Arguments: size in bytes, and a file to map privately; without one, the preloaded library hands the memory to a pager.
"touch FROM TO" reads a byte of every page from one number to another; "fill" writes all of it.
"""
import ctypes, mmap, os, sys, time

PAGE = 4096
size = int(sys.argv[1])

# By the name that the preloaded library has taken over, with the flags by which it knows a guest's memory.
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
PRIVATE, FIXED, ANONYMOUS = 0x02, 0x10, 0x20

if len(sys.argv) > 2:
    file = os.open(sys.argv[2], os.O_RDONLY)
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, PRIVATE, file, 0)
else:
    reserved = libc.mmap(None, size, 0, PRIVATE | ANONYMOUS, -1, 0)
    address = libc.mmap(reserved, size, mmap.PROT_READ | mmap.PROT_WRITE, PRIVATE | FIXED | ANONYMOUS, -1, 0)
memory = memoryview((ctypes.c_char * size).from_address(address)).cast("B")

for line in sys.stdin:
    words = line.split()
    start = time.monotonic()
    if words[0] == "touch":
        memory[int(words[1]) * PAGE : int(words[2]) * PAGE : PAGE].tobytes()
    else:
        chunk = os.urandom(1 << 20)
        for offset in range(0, size, len(chunk)):
            memory[offset : offset + len(chunk)] = chunk
    print((time.monotonic() - start) * 1000, flush=True)
