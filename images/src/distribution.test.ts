import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { detectDistribution } from "./distribution.ts";

let directory: string;
let file: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-os-release-"));
  file = path.join(directory, "os-release");
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe("the distribution", () => {
  it("is recognised with its release", async () => {
    await writeFile(file, 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n');
    expect(await detectDistribution(file)).toMatchObject({
      id: "debian",
      codename: "bookworm",
      kernelPackage: "linux-image-cloud-amd64",
    });
  });

  it.each([["ID=fedora\nPRETTY_NAME='Fedora Linux 43'\n"], ["ID=debian\nPRETTY_NAME=sid\n"], [""]])(
    "is refused with a sentence that names it: %j",
    async (text) => {
      await writeFile(file, text);
      await expect(detectDistribution(file)).rejects.toMatchObject({ code: "unsupported_machine" });
    },
  );

  it("is unknown where no file tells", async () => {
    await expect(detectDistribution(path.join(directory, "none"))).rejects.toThrow(
      "this machine runs an unknown system",
    );
  });
});
