/** Writes cpio archives in the "newc" form, the one the kernel unpacks as an initramfs (initramfs/buffer-format). */

export type CpioEntry =
  | { readonly kind: "directory"; readonly name: string; readonly mode: number }
  | { readonly kind: "file"; readonly name: string; readonly mode: number; readonly content: Buffer }
  | {
      readonly kind: "character-device";
      readonly name: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

const typeBits = { directory: 0o040000, file: 0o100000, "character-device": 0o020000 } as const;
const trailerName = "TRAILER!!!";
/** What cpio(1) pads an archive to. */
const blockBytes = 512;

/**
 * One archive of the entries, in their order: a directory goes before what lies in it. Names are relative to the root.
 * Owner is root and the time 0 everywhere, so the same entries give the same bytes.
 */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  for (const [index, entry] of entries.entries()) {
    const content = entry.kind === "file" ? entry.content : Buffer.alloc(0);
    parts.push(
      header({
        inode: index + 1,
        mode: typeBits[entry.kind] | entry.mode,
        links: entry.kind === "directory" ? 2 : 1,
        size: content.length,
        device: entry.kind === "character-device" ? [entry.major, entry.minor] : [0, 0],
        name: entry.name,
      }),
      padded(content, 4),
    );
  }
  parts.push(header({ inode: 0, mode: 0, links: 1, size: 0, device: [0, 0], name: trailerName }));
  return padded(Buffer.concat(parts), blockBytes);
}

interface Header {
  inode: number;
  mode: number;
  links: number;
  size: number;
  device: [major: number, minor: number];
  name: string;
}

function header({ inode, mode, links, size, device, name }: Header): Buffer {
  const nameBytes = Buffer.from(`${name}\0`);
  const owner = [0, 0];
  const modified = 0;
  const onDevice = [0, 0];
  const checksum = 0;
  const fields = [inode, mode, ...owner, links, modified, size, ...onDevice, ...device, nameBytes.length, checksum];
  const hex = fields.map((field) => field.toString(16).padStart(8, "0")).join("");
  return padded(Buffer.concat([Buffer.from(`070701${hex}`), nameBytes]), 4);
}

function padded(bytes: Buffer, multiple: number): Buffer {
  const missing = (multiple - (bytes.length % multiple)) % multiple;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
