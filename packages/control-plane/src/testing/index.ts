/** What other packages' tests use: a whole control plane on a real database, over a host agent that is simulated. */
export { RawClient, answerTo, type RawAnswer } from "./raw-client.ts";
export { SimulatedHostAgent } from "./simulated-host-agent.ts";
export { TestDatabase } from "./test-database.ts";
export { allowedOrigin, eventually, gate, TestServer, type Answer } from "./test-server.ts";
