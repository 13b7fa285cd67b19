/** Starts an engine's program without root's powers: own user, own namespaces, no capabilities, in its cgroup. */
import type { CgroupMembership } from "./cgroups.ts";

export interface Confinement {
  readonly uid: number;
  /** Supplementary groups: who may read templates, who may use /dev/kvm; these may be the same. */
  readonly groups: readonly number[];
  /** The network namespace to enter, or null to stay without any network. */
  readonly networkNamespace: string | null;
  readonly cgroup: CgroupMembership;
}

/**
 * Joins the cgroups, before anything of the engine runs; forbids core dumps, which would write guest memory to the host's disk; offers
 * itself first to the kernel when the host runs out of memory. A constant text: what varies comes in as arguments.
 */
const enterScript = `
count=$1
shift
while [ "$count" -gt 0 ]; do
  echo $$ > "$1"
  shift
  count=$((count - 1))
done
ulimit -c 0
echo 500 > /proc/self/oom_score_adj
exec "$@"
`;

/** The argument list that runs `command` in its control groups, and as `enterScript` says. */
function enteredCommand({ procsFiles }: CgroupMembership, command: readonly string[]): [string, string[]] {
  return ["sh", ["-euc", enterScript, "enter", String(procsFiles.length), ...procsFiles, ...command]];
}

/** Opened for both directions, which waits for nobody, and keeps the pipe there whoever else lets go of it. */
const printScript = `
console=$1
shift
exec "$@" 1<> "$console"
`;

/**
 * The same for a jailer, which as root makes the jail, the other namespaces and the user, and then becomes the engine.
 * @param console the named pipe that is its standard output
 */
export function jailedCommand(
  cgroup: CgroupMembership,
  console: string,
  jailer: readonly string[],
): [program: string, args: string[]] {
  const printing = ["sh", "-euc", printScript, "print", console];
  return enteredCommand(cgroup, [...printing, "unshare", "--ipc", "--uts", "--", ...jailer]);
}

/**
 * The argument list that runs `command` confined. Every link of the chain replaces itself by the next, so the pid that is
 * started is the pid of the engine.
 */
export function confinedCommand(
  confinement: Confinement,
  command: readonly string[],
): [program: string, args: string[]] {
  const { cgroup, networkNamespace, uid, groups } = confinement;
  const args = [
    networkNamespace === null ? ["unshare", "--net", "--"] : ["nsenter", `--net=${networkNamespace}`, "--"],
    ["unshare", "--mount", "--propagation", "private", "--ipc", "--uts", "--"],
    ["setpriv", "--reuid", String(uid), "--regid", String(uid), "--groups", [...new Set(groups)].join(",")],
    ["--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"],
    command,
  ];
  return enteredCommand(cgroup, args.flat());
}
