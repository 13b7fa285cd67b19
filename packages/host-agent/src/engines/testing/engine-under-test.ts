/** Which engine tests run VMs with: `WRENN_ENGINE=kvm` asks for QEMU on KVM; else QEMU emulates, which works everywhere. */

export const engineUnderTest = process.env["WRENN_ENGINE"] === "kvm" ? "kvm" : "tcg";

/** As host agents and frozen states name it. */
export const engineKindUnderTest = `qemu-${engineUnderTest}` as const;
