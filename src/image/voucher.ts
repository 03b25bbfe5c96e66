/**
 * Why the store path of an image, with its references, may be believed. `nix`: the Nix store of this host has it.
 * `content-address`: the path follows from the content. `signatures`: enough trusted keys signed it.
 */
export const VOUCHERS = ['nix', 'content-address', 'signatures'] as const
export type Voucher = (typeof VOUCHERS)[number]
