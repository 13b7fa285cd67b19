/** Named snapshots: templates that hold a sandbox's frozen memory and disk. Taken by `Sandbox.createSnapshot`. */
import { deadlines, listSnapshotsSchema, type Snapshot, snapshotSchema } from "@wrenn/contract";
import { bounds, type Connection, type ConnectionOptions, type RequestOptions } from "./connection.ts";
import { readPages } from "./pages.ts";
import { snapshotPath } from "./paths.ts";

export interface CreateSnapshotOptions extends RequestOptions {
  /**
   * What `template` of a create names from then on: 1 to 64 letters, digits, dots, underscores and dashes, beginning with a
   * letter or digit. Default: one that is made up, `snapshot-` and eight digits.
   */
  name?: string | undefined;
  /** Whether a snapshot of the team that has the name is replaced, once the new one is complete; default false. */
  overwrite?: boolean | undefined;
}

export interface ListSnapshotsOptions extends ConnectionOptions, RequestOptions {
  /** How many at most; default all. */
  limit?: number | undefined;
}

export interface SnapshotInfo {
  /** What `template` of a create names. */
  name: string;
  id: string;
  teamId: string;
  /** The sandbox that it was taken of. */
  sandboxId: string | null;
  /** Sizes of every sandbox that is started from it; memory and disk in MiB. */
  vcpus: number;
  memoryMib: number;
  diskMib: number;
  /** Bytes on the host's disk that it alone made necessary when it was taken. */
  sizeBytes: number;
  hostId: string | null;
  /** `firecracker`, `qemu-kvm` or `qemu-tcg`: what it was made by, and is started with. */
  engine: string | null;
  /** Of that engine. Another version does not start it. */
  engineVersion: string | null;
  /** The processor that its guest has found. It is started on no other. */
  cpu: string | null;
  /** How its disk is kept: `qcow2` or `dm-snapshot`. */
  diskFormat: string | null;
  createdAt: Date;
}

export async function createSnapshot(
  connection: Connection,
  sandboxId: string,
  options: CreateSnapshotOptions,
): Promise<SnapshotInfo> {
  const { name, overwrite } = options;
  const snapshot = await connection.send({
    method: "POST",
    path: snapshotPath(),
    body: { sandbox_id: sandboxId, name, overwrite },
    answer: snapshotSchema,
    // Sent twice, it would take two, or find its own name taken.
    repeatable: false,
    ...bounds(options, deadlines.snapshotSandbox),
  });
  return toSnapshotInfo(snapshot);
}

export function listSnapshots(
  connection: Connection,
  options: ListSnapshotsOptions,
): AsyncGenerator<SnapshotInfo, void, undefined> {
  return readPages(options.limit, async (query) => {
    const path = `${snapshotPath()}?${query.toString()}`;
    const page = await connection.send({ method: "GET", path, answer: listSnapshotsSchema, ...bounds(options) });
    return { items: page.snapshots.map((snapshot) => toSnapshotInfo(snapshot)), nextCursor: page.next_cursor };
  });
}

export async function getSnapshot(
  connection: Connection,
  name: string,
  options: RequestOptions,
): Promise<SnapshotInfo> {
  const path = snapshotPath(name);
  return toSnapshotInfo(await connection.send({ method: "GET", path, answer: snapshotSchema, ...bounds(options) }));
}

export async function deleteSnapshot(connection: Connection, name: string, options: RequestOptions): Promise<void> {
  await connection.remove({
    path: snapshotPath(name),
    missingCode: "snapshot_not_found",
    goneIsFine: false,
    ...bounds(options, deadlines.deleteSnapshot),
  });
}

function toSnapshotInfo(body: Snapshot): SnapshotInfo {
  return {
    name: body.name,
    id: body.id,
    teamId: body.team_id,
    sandboxId: body.sandbox_id,
    vcpus: body.vcpus,
    memoryMib: body.memory_mib,
    diskMib: body.disk_mib,
    sizeBytes: body.size_bytes,
    hostId: body.host_id,
    engine: body.engine,
    engineVersion: body.engine_version,
    cpu: body.cpu,
    diskFormat: body.disk_format,
    createdAt: new Date(body.created_at),
  };
}
