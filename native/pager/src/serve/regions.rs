//! Where guest memory lies in the VM's process: parts of it, each at an address of its own.
use std::ops::Range;

use memory_image::{PAGE_SIZE, Result};
use serde::{Deserialize, Serialize};

use super::vm::refused;

/// As Firecracker names it. `page_size` is what the region is backed by, in bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Region {
    base_host_virt_addr: u64,
    size: u64,
    /// Guest memory that lies at the beginning of the region.
    offset: u64,
    #[serde(skip_serializing)]
    page_size: u64,
}

/// In the order of guest memory, all of it, without gap.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Regions(Vec<Region>);

impl Regions {
    /// What the VM says of itself is believed only where it cannot do harm: addresses are its own.
    pub(crate) fn parse(message: &[u8], memory_size: u64) -> Result<Self> {
        let mut regions: Vec<Region> = serde_json::from_slice(message)
            .map_err(|error| refused(&format!("what the VM says of its memory is not understood: {error}")))?;
        regions.sort_by_key(|region| region.offset);
        let mut end = 0_u64;
        for region in &regions {
            let Region { base_host_virt_addr: base, size, offset, page_size } = *region;
            let whole = [base, size].iter().all(|value| value.is_multiple_of(PAGE_SIZE)) && size > 0;
            if page_size != PAGE_SIZE || !whole || offset != end || base.checked_add(size).is_none() {
                return Err(refused("the VM's regions leave a gap, overlap or are no pages"));
            }
            end = end.checked_add(size).filter(|&end| end <= memory_size).ok_or_else(|| {
                refused(&format!("the VM has more memory than the image, which has {memory_size} bytes"))
            })?;
        }
        if end == memory_size {
            return Ok(Self(regions));
        }
        Err(refused(&format!("the VM has {end} bytes of memory, the image {memory_size}")))
    }

    /// The guest page that lies at `address`.
    pub(crate) fn guest_page(&self, address: u64) -> Option<u64> {
        let inside = |region: &&Region| {
            address.checked_sub(region.base_host_virt_addr).is_some_and(|distance| distance < region.size)
        };
        let region = self.0.iter().find(inside)?;
        let guest = address - region.base_host_virt_addr + region.offset;
        Some(guest - guest % PAGE_SIZE)
    }

    /// Addresses of the beginning of `guest`, as far as it lies in one region.
    pub(crate) fn addresses(&self, guest: &Range<u64>) -> Option<Range<u64>> {
        let region = self.0.iter().find(|region| guest.start < region.offset.saturating_add(region.size))?;
        let distance = guest.start.checked_sub(region.offset)?;
        let length = (region.size - distance).min(guest.end.saturating_sub(guest.start));
        let start = region.base_host_virt_addr + distance;
        Some(start..start + length)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|region| region.base_host_virt_addr..region.base_host_virt_addr + region.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(base: u64, size: u64, offset: u64) -> String {
        format!(
            r#"{{"base_host_virt_addr":{base},"size":{size},"offset":{offset},"page_size":4096,"page_size_kib":4}}"#
        )
    }

    fn parse(regions: &[String]) -> Result<Regions> {
        Regions::parse(format!("[{}]", regions.join(",")).as_bytes(), 0x4000)
    }

    #[test]
    fn addresses_and_guest_pages_are_found_in_several_regions() {
        let regions = parse(&[region(0x10_0000, 0x1000, 0x3000), region(0x5000, 0x3000, 0)]).expect("regions");
        assert_eq!(regions.guest_page(0x5fff), Some(0));
        assert_eq!(regions.guest_page(0x10_0001), Some(0x3000));
        assert_eq!(regions.guest_page(0x8000), None);
        assert_eq!(regions.guest_page(0x4fff), None);
        assert_eq!(regions.addresses(&(0x1000..0x4000)), Some(0x6000..0x8000));
        assert_eq!(regions.addresses(&(0x3000..0x4000)), Some(0x10_0000..0x10_1000));
        assert_eq!(regions.addresses(&(0x4000..0x5000)), None);
    }

    #[test]
    fn regions_that_are_not_all_of_memory_are_refused() {
        for wrong in [
            vec![],
            vec![region(0x5000, 0x3000, 0)],
            vec![region(0x5000, 0x5000, 0)],
            vec![region(0x5000, 0x4000, 0x1000)],
            vec![region(0x5001, 0x4000, 0)],
            vec![region(0x5000, 0x3000, 0), region(0x9000, 0x2000, 0x2000)],
            vec![region(u64::MAX - 0xfff, 0x4000, 0)],
            vec![region(0x5000, 0x4000, 0).replace("\"page_size\":4096", "\"page_size\":2097152")],
            vec!["{}".to_owned()],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
