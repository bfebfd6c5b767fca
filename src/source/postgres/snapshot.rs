//! Transaction ids as the stream tells them: the low 32 bits of 64.

/// The 64-bit id of which the stream tells the low 32 bits: the nearest to `near`, a present one.
///
/// Ids in use never lie 2³¹ apart, so the nearest is the one.
pub fn widen(xid: u32, near: u64) -> u64 {
    let ahead = xid.wrapping_sub(near as u32) as i32;
    near.checked_add_signed(i64::from(ahead))
        .unwrap_or(u64::from(xid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_widened_to_the_nearest_epoch() {
        let epoch = |n: u64| n << 32;
        assert_eq!(widen(700, 731), 700);
        assert_eq!(widen(800, 731), 800);
        // Just before and just after the 32 bits have turned.
        assert_eq!(widen(0xffff_fff0, epoch(3) + 5), epoch(2) + 0xffff_fff0);
        assert_eq!(widen(3, epoch(2) + 0xffff_fff0), epoch(3) + 3);
        assert_eq!(
            widen(0xffff_fff0, epoch(2) + 0xffff_fff5),
            epoch(2) + 0xffff_fff0
        );
        // There is no epoch before the first.
        assert_eq!(widen(0xffff_fff0, 5), 0xffff_fff0);
    }
}
