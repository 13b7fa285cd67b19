/** What benchmarks share with the end-to-end tests. */
export { TestServer } from "./harness/test-server.ts";
