/** The users and groups that engines run as. Numbers without names: nothing is added to /etc/passwd. */

/**
 * The group that may read templates. Every engine process has it as a supplementary group. Chosen next to the range of
 * the slots' users, above what systemd and subordinate ids use (https://systemd.io/UIDS-GIDS/).
 */
export const enginesGid = 2_000_000_000;

/** Runs nothing but the canary that tries whether KVM works. */
export const canaryUid = enginesGid;

/** Runs nothing but the program that folds disk layers: what it reads was written by engines. */
export const diskToolUid = enginesGid + 1;

/**
 * The group of every jailed engine, beside a user of its own. It may read the frozen memory that is shared: a jailed engine reaches only
 * what was put into its jail.
 */
export const jailsGid = enginesGid + 2;
