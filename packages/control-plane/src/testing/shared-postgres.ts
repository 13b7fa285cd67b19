/**
 * One PostgreSQL for a whole run of the tests, as Vitest's global set-up. It is started when the first file asks for it, by a connection to a
 * socket that all of them find in their environment, and stopped when the last has ended.
 */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { TestPostgres } from "./test-postgres.ts";

const socketVariable = "WRENN_TEST_POSTGRES";

/** @returns what to do when all tests have ended */
export default async function offerSharedPostgres(): Promise<() => Promise<void>> {
  const directory = await mkdtemp(path.join(tmpdir(), "wrenn-shared-"));
  const socket = path.join(directory, "postgres.sock");
  let postgres: Promise<TestPostgres> | undefined;
  const answer = async (asker: net.Socket): Promise<void> => {
    postgres ??= TestPostgres.start();
    try {
      asker.end(String((await postgres).port));
    } catch (error) {
      asker.end(String(error));
    }
  };
  const server = net.createServer((asker) => {
    asker.on("error", () => asker.destroy());
    void answer(asker);
  });
  server.listen(socket);
  await once(server, "listening");
  process.env[socketVariable] = socket;
  return async () => {
    server.close();
    await (await postgres)?.stop();
    await rm(directory, { recursive: true });
  };
}

/** Null where nothing is shared, as outside of Vitest. */
export async function sharedPostgresPort(): Promise<number | null> {
  const socket = process.env[socketVariable];
  if (socket === undefined) return null;
  const answer = await text(net.connect(socket));
  const port = Number(answer);
  if (!Number.isInteger(port) || port === 0) throw new Error(`PostgreSQL did not start: ${answer}`);
  return port;
}
