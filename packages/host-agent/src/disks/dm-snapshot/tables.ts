/** Tables of device-mapper (Documentation/admin-guide/device-mapper of Linux). Sizes are in sectors. No I/O. */
import { chunkSectors } from "./cow-file.ts";

/** What differs from the device below is in a file of changes; only there is it written. */
export function snapshotTable(sectors: number, below: string, changes: string): string {
  return `0 ${sectors} snapshot ${below} ${changes} P ${chunkSectors}`;
}

/** A device with zeros behind it, or as much of it as the size leaves. */
export function filledTable(sectors: number, device: string, deviceSectors: number): string {
  const own = Math.min(sectors, deviceSectors);
  const lines = [`0 ${own} linear ${device} 0`];
  if (own < sectors) lines.push(`${own} ${sectors - own} zero`);
  return lines.join("\n");
}
