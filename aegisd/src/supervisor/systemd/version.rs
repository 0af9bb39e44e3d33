//! The version of the manager, by which features are chosen.

/// The leading number of `Manager.Version`, e.g. `257.13-1~deb13u1`.
pub(super) fn major_version(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_read() {
        assert_eq!(major_version("257.13-1~deb13u1"), 257);
        assert_eq!(major_version("252.39-1~deb12u2"), 252);
        assert_eq!(major_version("v258~rc1"), 0);
    }
}
