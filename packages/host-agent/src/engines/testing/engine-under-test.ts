/** Which engine tests run VMs with: the emulated one, which works everywhere, unless `WRENN_ENGINE` names another. */
const named = process.env["WRENN_ENGINE"];

export const engineUnderTest = named === "kvm" || named === "firecracker" ? named : "tcg";

/** As host agents and frozen states name it. */
export const engineKindUnderTest =
  engineUnderTest === "firecracker" ? "firecracker" : (`qemu-${engineUnderTest}` as const);
