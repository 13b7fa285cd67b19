"""Runs a program on a terminal of its own: pseudo-terminal.py COLUMNS ROWS PROGRAM...

Standard input: a line of JSON for each thing to do: {"type": BASE64}, {"resize": [COLUMNS, ROWS]}, {"signal": NUMBER}.
Standard output: what the terminal shows. Standard error, at the end: a line of JSON about how the program ended, and whether it
left the terminal as it was.
"""

import base64
import fcntl
import json
import os
import select
import struct
import sys
import termios


def set_size(terminal, columns, rows):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def start(program, ours, terminal):
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for descriptor in 0, 1, 2:
        os.dup2(terminal, descriptor)
    os.close(ours)
    os.close(terminal)
    os.execvp(program[0], program)


def do(request, pid, ours):
    if "type" in request:
        data = base64.b64decode(request["type"])
        while data:
            data = data[os.write(ours, data):]
    elif "resize" in request:
        set_size(ours, *request["resize"])
    elif "signal" in request:
        os.kill(pid, request["signal"])


def main():
    columns, rows, *program = sys.argv[1:]
    ours, terminal = os.openpty()
    set_size(terminal, int(columns), int(rows))
    before = termios.tcgetattr(terminal)
    pid = start(program, ours, terminal)
    partial = b""
    inputs = [ours, 0]
    status = None
    while True:
        readable, _, _ = select.select(inputs, [], [], 0.02)
        if ours in readable:
            output = os.read(ours, 65536)
            while output:
                output = output[os.write(1, output):]
        if 0 in readable:
            data = os.read(0, 65536)
            if not data:
                inputs.remove(0)
            *lines, partial = (partial + data).split(b"\n")
            for line in lines:
                # What is asked for once the program has ended is for nobody.
                if status is None:
                    do(json.loads(line), pid, ours)
        if status is not None and not readable:
            break
        if status is None:
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = wait_status
    signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    restored = termios.tcgetattr(terminal) == before
    print(json.dumps({"exitCode": code, "signal": signal, "restored": restored}), file=sys.stderr)


main()
