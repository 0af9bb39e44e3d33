//! systemd: transient units over D-Bus.
