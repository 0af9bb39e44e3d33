//! Programs of others that several of ours run, which may lie where no PATH of a user
//! or a unit leads.

/// Such a program.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name, for people.
    pub name: &'static str,
    /// The package it is in, by the name that Debian, Fedora and Homebrew share.
    pub package: &'static str,
    /// Where it may be, the likeliest first.
    pub places: &'static [&'static str],
}

/// Makes a file system of a tar stream; squashfs-tools 4.5 or newer.
pub const SQFSTAR: Tool = Tool {
    name: "sqfstar",
    package: "squashfs-tools",
    places: &[
        "/usr/bin/sqfstar",
        "/usr/local/bin/sqfstar",
        "/opt/homebrew/bin/sqfstar",
        "/home/linuxbrew/.linuxbrew/bin/sqfstar",
    ],
};

/// Seals data with keys of the host; systemd 250 or newer, for users 256.
pub const SYSTEMD_CREDS: Tool = Tool {
    name: "systemd-creds",
    package: "systemd",
    places: &["/usr/bin/systemd-creds", "/bin/systemd-creds"],
};

/// Reaches the keychain of macOS, which it is a part of.
pub const SECURITY: Tool = Tool {
    name: "security",
    package: "macOS",
    places: &["/usr/bin/security"],
};

/// Carries the guests' connections with an ordinary user's rights.
pub const PASST: Tool = Tool {
    name: "passt",
    package: "passt",
    places: &["/usr/bin/passt", "/usr/local/bin/passt", "/usr/sbin/passt"],
};

/// Makes an ext4 file system. Debian keeps it in /usr/sbin.
pub const MKE2FS: Tool = Tool {
    name: "mke2fs",
    package: "e2fsprogs",
    places: &[
        "/usr/sbin/mke2fs",
        "/sbin/mke2fs",
        "/usr/bin/mke2fs",
        "/usr/local/sbin/mke2fs",
        "/opt/homebrew/opt/e2fsprogs/sbin/mke2fs",
    ],
};
