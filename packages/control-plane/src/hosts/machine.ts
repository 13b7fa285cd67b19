/**
 * What a virtual machine runs on. A frozen state is started again only where all of it is the same: its memory and its devices are those
 * of one engine, version and processor, and its disk is of one format. The host agent has the last word, for it sees more of it.
 */
import { formatId, WrennError } from "@wrenn/contract";
import type { hostAgentProto } from "@wrenn/contract";
import type { HostRow } from "../store/schema.ts";

/** Columns of hosts, sandboxes and templates. Null where it was never told. */
export type Machine = Pick<HostRow, "engine" | "engine_version" | "cpu" | "disk_format">;
export type MachinePart = keyof Machine;

/** In the order in which they are told: where the engine is another one, its version says nothing. */
export const machineParts = [
  "engine",
  "engine_version",
  "cpu",
  "disk_format",
] as const satisfies readonly MachinePart[];

/** As a host tells of itself, of a sandbox that runs, or of a snapshot. */
export function machineOf(
  told: Pick<hostAgentProto.Sandbox, "engine" | "engineVersion" | "cpu" | "diskFormat">,
): Machine {
  return {
    engine: told.engine || null,
    engine_version: told.engineVersion || null,
    cpu: told.cpu || null,
    disk_format: told.diskFormat || null,
  };
}

/** A host can use disks of several formats, in one of which it makes new ones. */
type HostMachine = Machine & Pick<HostRow, "disk_formats">;

/** In what the host differs from what is needed, as far as both are known. */
export function differences(
  needed: Machine,
  host: HostMachine,
  parts: readonly MachinePart[] = machineParts,
): MachinePart[] {
  return parts.filter((part) => {
    const has = part === "disk_format" ? host.disk_formats : [host[part] ?? []].flat();
    const needs = needed[part];
    return needs !== null && has.length > 0 && !has.includes(needs);
  });
}

/**
 * Why none of these hosts, which are online and have the frozen state, can start it.
 * @param what such as `snapshot`
 */
export function incompatible(
  what: "snapshot" | "sandbox",
  needed: Machine,
  hosts: readonly HostRow[],
  parts: readonly MachinePart[] = machineParts,
): WrennError {
  const looks = hosts.map((host) => ({ host, different: differences(needed, host, parts) }));
  // Of the host that comes nearest.
  const missing = parts.findLast((part) => looks.some(({ different: [first] }) => first === part)) ?? "engine";
  const [only, ...others] = looks;
  const instead =
    only === undefined || others.length > 0 ? "" : ` Its host has ${inWords(missing, asUsed(only.host))}.`;
  return new WrennError("snapshot_incompatible", {
    message: `${lacking(missing, what, needed)}${instead}`,
    suggestion: suggestions[missing],
    details: {
      needed,
      hosts: looks.map(({ host, different }) => ({
        host_id: formatId("host", host.id),
        ...Object.fromEntries(machineParts.map((part) => [part, host[part]])),
        disk_formats: host.disk_formats,
        different,
      })),
    },
  });
}

function asUsed(host: HostMachine): Machine {
  return { ...host, disk_format: host.disk_formats.join(" and ") };
}

function lacking(part: MachinePart, what: string, needed: Machine): string {
  const verb = part === "engine" ? "runs" : "has";
  return `No host that is online and holds the ${what} ${verb} ${inWords(part, needed)}, which the ${what} was made with.`;
}

function inWords(part: MachinePart, machine: Machine): string {
  const { engine, engine_version, cpu, disk_format } = machine;
  switch (part) {
    case "engine":
      return String(engine);
    case "engine_version":
      return `${String(engine)} ${String(engine_version)}`;
    case "cpu":
      return `the processor ${String(cpu)}`;
    case "disk_format":
      return `disks in the format ${String(disk_format)}`;
    default:
      return part satisfies never;
  }
}

const suggestions: Readonly<Record<MachinePart, string>> = {
  engine:
    "Start the host agent with that engine (WRENN_ENGINE) and try again; `wrenn doctor` on the host says what keeps it from it.",
  engine_version: "Install that version on the host and try again, or make it anew.",
  cpu: "Start it on a host with that processor, or make it anew.",
  disk_format: "`wrenn doctor` on the host says what keeps it from such disks; mend it and try again, or make it anew.",
};
