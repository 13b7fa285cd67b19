/** One server for all tests of a file; after them, nothing of it is left on the machine. */
import { afterAll, beforeAll, expect } from "vitest";
import { TestServer } from "./test-server.ts";

export function useServer(): () => TestServer {
  let server: TestServer | undefined;
  beforeAll(async () => {
    server = await TestServer.start();
  });
  afterAll(async () => {
    if (server !== undefined) expect(await server.stop()).toEqual([]);
  });
  return () => {
    if (server === undefined) throw new Error("the server has not been started");
    return server;
  };
}
