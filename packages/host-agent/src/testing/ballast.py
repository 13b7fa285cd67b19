# In a guest: holds memory of which every page can be told from every other, and does what it is told through one pipe.
# Answers through another: checksums of its blocks. Cheap, for an emulated processor.
import mmap
import os
import struct
import sys
import zlib

PAGE = 4096
BLOCK = 256 * PAGE
pages = int(sys.argv[1])
memory = mmap.mmap(-1, pages * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def fill(first, count, stride, seed):
    for page in range(first, min(first + count * stride, pages), stride):
        memory[page * PAGE : (page + 1) * PAGE] = struct.pack("<II", seed, page) * (PAGE // 8)


def zero(first, count):
    memory[first * PAGE : (first + count) * PAGE] = bytes(count * PAGE)


def drop(first, count):
    memory.madvise(mmap.MADV_DONTNEED, first * PAGE, count * PAGE)


def sums():
    with memoryview(memory) as view:
        return [zlib.crc32(view[at : at + BLOCK]) for at in range(0, pages * PAGE, BLOCK)]


verbs = {"fill": fill, "zero": zero, "drop": drop, "sums": sums}
for name in ("orders", "answers"):
    os.mkfifo("/run/ballast." + name)
while True:
    with open("/run/ballast.orders") as orders:
        verb, *numbers = orders.readline().split()
    answer = verbs[verb](*map(int, numbers)) or ["done"]
    with open("/run/ballast.answers", "w") as answers:
        print(*answer, file=answers)
