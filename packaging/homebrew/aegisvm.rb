class Aegisvm < Formula
  desc "MicroVMs supervised by the operating system's service manager"
  homepage "https://github.com/xfeldman/aegisvm"
  version "@VERSION@"
  license "Apache-2.0"

  depends_on "e2fsprogs"
  depends_on "qemu"
  depends_on "squashfs"

  on_linux do
    url "https://github.com/xfeldman/aegisvm/releases/download/v@VERSION@/@SOURCE@"
    sha256 "@SHA256@"

    depends_on arch: :x86_64
  end

  # There are no built programs for macOS: nobody has run them there.
  on_macos do
    url "https://github.com/xfeldman/aegisvm/releases/download/v@VERSION@/@SOURCES@"
    sha256 "@SOURCES_SHA256@"

    depends_on "rust" => :build
    depends_on arch: :arm64
  end

  # What guests of arm64 boot from: `--platform linux/arm64`, and all guests of Apple's machines.
  resource "guest-aarch64" do
    url "https://github.com/xfeldman/aegisvm/releases/download/v@VERSION@/@GUEST_SOURCE@"
    sha256 "@GUEST_SHA256@"
  end

  def install
    if OS.mac?
      install_sources
      (lib/"aegisvm/guest").install resource("guest-aarch64")
    else
      system "./install", "--prefix", prefix, "--opt", opt_prefix, "aegisvm-guest", "aegisvm"
      (lib/"aegisvm/guest/aarch64").install resource("guest-aarch64")
      # What `brew services` and systemctl link to.
      prefix.install_symlink lib/"systemd/user/aegisd.service"
    end
  end

  # All of packaging/files that is not for systemd, D-Bus's daemon or polkit.
  def install_sources
    programs = ["aegisd", "aegis-vmm", "aegis-shim", "aegis-image"]
    packages = ["aegisctl", *programs].flat_map { |name| ["--package", name] }
    system "cargo", "build", "--release", "--locked", *packages
    bin.install "target/release/aegisctl"
    bin.install_symlink bin/"aegisctl" => "aegis"
    (libexec/"aegisvm").install programs.map { |name| "target/release/#{name}" }
    bash_completion.install "packaging/completions/aegisctl.bash", "packaging/completions/aegis.bash"
    fish_completion.install "packaging/completions/aegisctl.fish", "packaging/completions/aegis.fish"
    zsh_completion.install "packaging/completions/_aegisctl", "packaging/completions/_aegis"
    man1.install Dir["packaging/man/*.1"]
    (share/"aegisvm/kits/schemas").install "docs/kit-manifest.schema.json"
    # What `brew services` copies into ~/Library/LaunchAgents.
    inreplace "launchd/org.aegisvm.aegisd.plist", "@PREFIX@", opt_prefix
    prefix.install "launchd/org.aegisvm.aegisd.plist"
  end

  service do
    name linux: "aegisd", macos: "org.aegisvm.aegisd"
    # On macOS the property list that is installed says it.
    run linux: [opt_libexec/"aegisvm/aegisd", "--user"]
    keep_alive true
  end

  def caveats
    if OS.mac?
      <<~EOS
        Nothing of this was ever run on a Mac. aegisd runs from now on and at every login by:
          brew services start aegisvm
        What does not work there, by `aegisctl doctor`: a sandbox around QEMU and daemons,
        limits of memory and CPU, a network of guests beside their ports.
      EOS
    else
      <<~EOS
        Once, tell your service manager and your bus where aegisd is:
          systemctl --user link #{opt_lib}/systemd/user/aegisd.service #{opt_lib}/systemd/user/aegisd.socket #{opt_lib}/systemd/user/aegisd-credentials.socket
          mkdir -p ~/.local/share/dbus-1/services
          ln -sf #{opt_share}/dbus-1/services/org.aegisvm.Aegis1.service ~/.local/share/dbus-1/services/
          aegisctl up
        Guests have a network where the distribution's package passt is installed.
      EOS
    end
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/aegisctl --version")
  end
end
