"""First process of the lab's VM once its disks are there: makes the place ready, runs one command, and tells the host all about it.

Everything goes over one channel, a virtio-serial port. From the host: one JSON object a line, the first of them the configuration, later
{"stop": true}. To the host: frames of one byte (their kind), four bytes (length, big-endian), and the content; see lab/src/frames.ts.
"""
import errno
import glob
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time

MODULES = ["dm_snapshot", "dm_zero", "loop", "tun", "vhost_vsock"]
# The kernel would load them by itself, at the first rules of a test that has a deadline for that.
MODULES += ["nft_chain_nat", "nft_ct", "nft_limit", "nft_masq", "nft_nat", "nft_reject_inet", "veth"]
HEARTBEAT_SECONDS = 5
# For processes that outlive the command and still hold its output.
DRAIN_SECONDS = 5
# For a command that was told to stop.
STOP_SECONDS = 5
CHUNK = 1 << 16


def main():
    channel = Channel()
    config = channel.receive()
    time.clock_settime(time.CLOCK_REALTIME, config["time"])
    prepare(config)
    channel.send("R", b"")
    threading.Thread(target=beat, args=(channel,), daemon=True).start()
    outcome = run(channel, config)
    if config["results"] is not None:
        send_results(channel, config["results"])
    channel.send("X", outcome)
    # The host ends this machine; a first process that ended would make the kernel panic.
    while True:
        signal.pause()


class Channel:
    def __init__(self):
        self.port = os.open(find_port(), os.O_RDWR)
        self.lock = threading.Lock()
        self.rest = b""

    def receive(self):
        while b"\n" not in self.rest:
            self.rest += os.read(self.port, CHUNK)
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def send(self, kind, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        frame = kind.encode() + struct.pack(">I", len(body)) + body
        with self.lock:
            while frame:
                frame = frame[os.write(self.port, frame):]


def find_port():
    for name in glob.glob("/sys/class/virtio-ports/*/name"):
        if open(name).read().strip() == "lab":
            return "/dev/" + name.split("/")[-2]
    sys.exit("lab: there is no channel to the host")


def mount(*args):
    subprocess.run(["mount", *args], check=True)


def prepare(config):
    for kind, place in [("tmpfs", "/run"), ("tmpfs", "/dev/shm"), ("devpts", "/dev/pts"), ("cgroup2", "/sys/fs/cgroup")]:
        os.makedirs(place, exist_ok=True)
        mount("-t", kind, kind, place)
    os.chmod("/dev/shm", 0o1777)
    disks = {open(f"/sys/block/{name}/serial").read(): f"/dev/{name}" for name in os.listdir("/sys/block") if name.startswith("vd")}
    format_scratch(disks["scratch"], config["scratch"])
    for share in config["mounts"]:
        os.makedirs(share["path"], exist_ok=True)
        if "disk" in share:
            mount("-t", "ext4", disks[share["disk"]], share["path"])
        else:
            os.makedirs(share["from"], exist_ok=True)
            mount("--bind", share["from"], share["path"])
    if config["results"] is not None:
        os.makedirs("/scratch/results")
        os.makedirs(config["results"], exist_ok=True)
        mount("--bind", "/scratch/results", config["results"])
    flags = open("/proc/cpuinfo").read().split()
    kvm = ["kvm_amd"] if "svm" in flags else ["kvm_intel"] if "vmx" in flags else []
    subprocess.run(["modprobe", "--all", *kvm, *MODULES], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open("/proc/sys/kernel/hostname", "w") as hostname:
        hostname.write("lab")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 524288))


def format_scratch(disk, kind):
    make = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1"]}[kind]
    subprocess.run([*make, disk], check=True)
    os.makedirs("/scratch")
    mount("-t", kind, disk, "/scratch")
    for name in ["tmp", "var-tmp"]:
        os.mkdir(f"/scratch/{name}")
        os.chmod(f"/scratch/{name}", 0o1777)
    mount("--bind", "/scratch/tmp", "/tmp")
    mount("--bind", "/scratch/var-tmp", "/var/tmp")


def beat(channel):
    while True:
        time.sleep(HEARTBEAT_SECONDS)
        channel.send("B", b"")


def run(channel, config):
    """Starts the command in a session of its own, and reaps whatever ends until it does."""
    outputs = {"O": os.pipe(), "E": os.pipe()}
    nothing = os.open("/dev/null", os.O_RDONLY)
    try:
        os.chdir(config["directory"])
        os.environ["PATH"] = config["env"]["PATH"]
        pid = spawn(config, nothing, outputs["O"][1], outputs["E"][1])
    except OSError as error:
        code = 127 if error.errno == errno.ENOENT else 126
        channel.send("E", f"lab: {config['command'][0]}: {error.strerror}\n".encode())
        return {"code": code}
    pumps = []
    for kind, (reading, writing) in outputs.items():
        os.close(writing)
        pumps.append(threading.Thread(target=pump, args=(channel, kind, reading), daemon=True))
    for thread in pumps:
        thread.start()
    threading.Thread(target=obey, args=(channel, pid), daemon=True).start()
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            break
    until = time.monotonic() + DRAIN_SECONDS
    for thread in pumps:
        thread.join(max(0, until - time.monotonic()))
    return {"code": os.WEXITSTATUS(status)} if os.WIFEXITED(status) else {"signal": os.WTERMSIG(status)}


def spawn(config, stdin, stdout, stderr):
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate([stdin, stdout, stderr])]
    return os.posix_spawnp(config["command"][0], config["command"], config["env"], file_actions=actions, setsid=True)


def pump(channel, kind, reading):
    while content := os.read(reading, CHUNK):
        channel.send(kind, content)


def obey(channel, pid):
    """The one order there is: the command has had its time."""
    channel.receive()
    for number in [signal.SIGTERM, signal.SIGKILL]:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        time.sleep(STOP_SECONDS)


def send_results(channel, directory):
    archiver = subprocess.Popen(["tar", "-C", directory, "-cf", "-", "."], stdout=subprocess.PIPE)
    while content := archiver.stdout.read(CHUNK):
        channel.send("F", content)
    archiver.wait()


main()
