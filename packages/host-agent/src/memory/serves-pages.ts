/** Whether this kernel lets a program without privileges have its pages brought by another: since Linux 6.1, through a device. */
import { access, constants } from "node:fs/promises";

export async function servesPages(): Promise<boolean> {
  try {
    await access("/dev/userfaultfd", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
