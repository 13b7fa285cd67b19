/** Which of the ways to run VMs a host uses: the best that works, or the one that its operator demands. */
import { WrennError } from "@wrenn/contract";
import type { Engine } from "./engine.ts";

export const engineChoices = ["auto", "firecracker", "kvm", "tcg"] as const;
/** `auto` is Firecracker where it works, else QEMU with KVM where that works, else QEMU that emulates the processor. */
export type EngineChoice = (typeof engineChoices)[number];

/** What was found of one way to run VMs. Each sentence stands by itself. */
export type Prospect =
  | { readonly works: true; readonly because: string; readonly make: (reason: string) => Engine }
  | { readonly works: false; readonly because: string; readonly remedy: string };

/** Found out only when it matters: to try KVM takes seconds. */
export type Prospects = Readonly<Record<Exclude<EngineChoice, "auto">, () => Promise<Prospect>>>;

/** @throws WrennError `engine_unavailable`, with why and what to do, or what the prospects throw */
export async function chooseEngine(choice: EngineChoice, prospects: Prospects): Promise<Engine> {
  if (choice !== "auto") return demanded(choice, await prospects[choice]());
  const firecracker = await prospects.firecracker();
  if (firecracker.works) return firecracker.make(firecracker.because);
  const kvm = await prospects.kvm();
  if (kvm.works) return kvm.make(`${kvm.because} Firecracker is not used: ${uncapitalised(firecracker.because)}`);
  const tcg = await prospects.tcg();
  if (tcg.works) return tcg.make(`${kvm.because} ${tcg.because}`);
  throw new WrennError("engine_unavailable", {
    message: `No engine works here. ${tcg.because}`,
    suggestion: tcg.remedy,
  });
}

function demanded(choice: Exclude<EngineChoice, "auto">, prospect: Prospect): Engine {
  if (prospect.works) return prospect.make(`WRENN_ENGINE=${choice} demands it. ${prospect.because}`);
  throw new WrennError("engine_unavailable", {
    message: `WRENN_ENGINE=${choice}, which cannot run here. ${prospect.because}`,
    suggestion: `${prospect.remedy} Or set WRENN_ENGINE=auto.`,
    details: { demanded: choice },
  });
}

/** As it is within a sentence; names such as KVM or /dev/kvm stay as they are. */
function uncapitalised(sentence: string): string {
  return /^[A-Z][a-z]*\s/.test(sentence) ? sentence.charAt(0).toLowerCase() + sentence.slice(1) : sentence;
}
