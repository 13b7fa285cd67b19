/** One server for all tests of a file; after them, nothing of it is left on the machine. */
import assert from "node:assert/strict";
import { afterAll, beforeAll } from "vitest";
import { TestServer } from "./test-server.ts";

export function useServer(): () => TestServer {
  let server: TestServer | undefined;
  beforeAll(async () => {
    server = await TestServer.start();
  });
  afterAll(async () => {
    if (server !== undefined) assert.deepEqual(await server.stop(), []);
  });
  return () => {
    if (server === undefined) throw new Error("the server has not been started");
    return server;
  };
}
