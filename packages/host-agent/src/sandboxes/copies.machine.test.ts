/** Copies of a sandbox that has its hands full: memory and disk are one moment, and no copy is another, nor of the past. */
import { readFile } from "node:fs/promises";
import { Code } from "@connectrpc/connect";
import { guestAgentPort } from "@wrenn/contract";
import { pollUntil, readJson } from "@wrenn/system";
import { afterAll, beforeAll, expect, it } from "vitest";
import { exchange } from "../testing/guest.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { TestSandbox } from "../testing/test-sandbox.ts";
import { journalSchema } from "./journal.ts";

let agent: TestHostAgent;

beforeAll(async () => {
  agent = await TestHostAgent.prepare();
  await agent.start();
});

afterAll(async () => {
  await agent.remove();
});

/** Serves an archive to a program that writes it to the disk, and waits before the last of it until it may go on. */
const download = `
import os, socket, threading, time
content = open("/dev/shm/original.tar", "rb").read()
server = socket.create_server(("127.0.0.1", 9000))
def serve():
    connection, _ = server.accept()
    for at in range(0, len(content), 32768):
        while at > len(content) - 262144 and not os.path.exists("/dev/shm/go-on"):
            time.sleep(0.02)
        connection.sendall(content[at : at + 32768])
        time.sleep(0.01)
    connection.close()
threading.Thread(target=serve).start()
connection = socket.create_connection(("127.0.0.1", 9000))
with open("/root/copy.tar", "wb") as copy:
    while piece := connection.recv(65536):
        copy.write(piece)
        copy.flush()
os.rename("/root/copy.tar", "/root/whole.tar")
`;

it("a download under way when a snapshot is taken becomes whole in the source and in every copy", async () => {
  const source = await TestSandbox.create(agent);
  await source.run(`mkdir /tmp/content; cd /tmp/content
for n in 1 2 3 4 5 6 7 8 9; do head -c 300000 /dev/urandom > $n; done
tar -cf /dev/shm/original.tar . && rm -r /tmp/content && sha256sum < /dev/shm/original.tar > /root/sum
cat > /root/download.py <<'EOF'
${download}EOF
setsid python3 /root/download.py >/root/download.log 2>&1 </dev/null &`);
  const begun = async (): Promise<true | null> =>
    Number(await source.run("stat -c %s /root/copy.tar 2>/dev/null || echo 0")) > 300_000 ? true : null;
  expect(await pollUntil(begun, { timeoutMs: 30_000, intervalMs: 50 })).toBe(true);
  const snapshot = await source.keep();
  const fork = new TestSandbox(agent);
  await source.fork([fork]);
  for (const sandbox of [source, fork, await TestSandbox.copyOf(agent, snapshot)]) {
    expect(await sandbox.run("ls /root/whole.tar 2>/dev/null || echo under way")).toBe("under way\n");
    await sandbox.run("touch /dev/shm/go-on; until [ -e /root/whole.tar ]; do sleep 0.05; done");
    // Read from the disk, not from what the guest remembers of it.
    await sandbox.run("sync; echo 3 > /proc/sys/vm/drop_caches");
    expect(await sandbox.run("tar -tf /root/whole.tar | grep -c '[0-9]$'")).toBe("9\n");
    expect(await sandbox.run("sha256sum < /root/whole.tar | cmp - /root/sum && echo the same")).toBe("the same\n");
    await sandbox.destroy();
  }
}, 240_000);

/** The random part of what a new TLS client says first. One that ran before the fork goes on with a generator of its own (docs/guide.md). */
const tlsRandom = `python3 -c '
import ssl
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
connection = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="example.com")
try:
    connection.do_handshake()
except ssl.SSLWantReadError:
    print(outgoing.read()[11:43].hex())
'`;

/** Whatever two machines must not share. */
const selves: readonly (readonly [string, string])[] = [
  ["entropy", "head -c 32 /dev/urandom | md5sum"],
  ["the kernel's uuid", "cat /proc/sys/kernel/random/uuid"],
  ["boot id", "cat /proc/sys/kernel/random/boot_id"],
  ["TLS random", tlsRandom],
  ["hostname", "hostname"],
  ["machine id", "cat /etc/machine-id"],
];

it("forks differ from their source and each other in all that tells machines apart, and their clocks are right", async () => {
  const source = await TestSandbox.create(agent);
  await source.run("head -c 1 /dev/urandom; date -s 2001-02-03");
  const sandboxes = [source, new TestSandbox(agent), new TestSandbox(agent)];
  await source.fork(sandboxes.slice(1));
  const seen = new Map<string, Set<string>>();
  const see = (what: string, value: string): void => {
    expect(`${what}: ${value.trim()}`).not.toBe(`${what}: `);
    seen.set(what, (seen.get(what) ?? new Set()).add(value));
  };
  for (const sandbox of sandboxes) {
    for (const [what, command] of selves) see(what, await sandbox.run(command));
    // The slot's number decides its addresses on the host, which are all that is seen outside.
    see("address", await slotOf(sandbox));
    if (sandbox === source) continue;
    const before = Date.now();
    const clock = Number(await sandbox.run("date +%s%3N"));
    expect(clock).toBeGreaterThan(before - 2_000);
    expect(clock).toBeLessThan(Date.now() + 2_000);
  }
  const shared = [...seen].filter(([, values]) => values.size < sandboxes.length).map(([what]) => what);
  expect(shared).toEqual([]);
  for (const sandbox of sandboxes) await sandbox.destroy();
});

async function slotOf({ id }: TestSandbox): Promise<string> {
  const journal = journalSchema.parse(await readJson(agent.layout.sandbox(id).journal));
  return "slot" in journal ? String(journal.slot) : "";
}

it("a fork whose guest does not confirm that it has new entropy fails, and leaves nothing", async () => {
  const source = await TestSandbox.create(agent);
  const program = await readFile(new URL("testing/unconfirming-agent.py", import.meta.url), "utf8");
  await source.run(`cat > /root/agent.py <<'EOF'
${program}EOF
setsid python3 /root/agent.py >/root/agent.log 2>&1 </dev/null &`);
  const ask = "GET / HTTP/1.1\r\nhost: guest\r\nconnection: close\r\n\r\n";
  const takenOver = async (): Promise<true | null> => {
    const answer = await exchange(agent.layout.hostAgentSocket, `${source.id}:${guestAgentPort}`, ask);
    return answer.endsWith("\r\n\r\n{}") ? true : null;
  };
  expect(await pollUntil(takenOver, { timeoutMs: 30_000, intervalMs: 100 })).toBe(true);
  const before = await agent.traces();
  const copy = new TestSandbox(agent);
  await expect(source.fork([copy])).rejects.toThrow("did not confirm that it has new entropy");
  await expect(copy.describe()).rejects.toMatchObject({ code: Code.NotFound });
  await expect.poll(() => agent.traces()).toEqual(before);
  await source.destroy();
});
