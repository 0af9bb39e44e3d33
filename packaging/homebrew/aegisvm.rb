class Aegisvm < Formula
  desc "MicroVMs supervised by the operating system's service manager"
  homepage "https://github.com/xfeldman/aegisvm"
  url "https://github.com/xfeldman/aegisvm/releases/download/v@VERSION@/@SOURCE@"
  version "@VERSION@"
  sha256 "@SHA256@"
  license "Apache-2.0"

  depends_on arch: :x86_64
  depends_on "e2fsprogs"
  depends_on :linux
  depends_on "qemu"
  depends_on "squashfs"

  # What guests of arm64 boot from: `--platform linux/arm64`.
  resource "guest-aarch64" do
    url "https://github.com/xfeldman/aegisvm/releases/download/v@VERSION@/@GUEST_SOURCE@"
    sha256 "@GUEST_SHA256@"
  end

  def install
    system "./install", "--prefix", prefix, "--opt", opt_prefix, "aegisvm-guest", "aegisvm"
    (lib/"aegisvm/guest/aarch64").install resource("guest-aarch64")
    # What `brew services` and systemctl link to.
    prefix.install_symlink lib/"systemd/user/aegisd.service"
  end

  service do
    name linux: "aegisd", macos: "org.aegisvm.aegisd"
    run [opt_libexec/"aegisvm/aegisd", "--user"]
    keep_alive true
  end

  def caveats
    <<~EOS
      Once, tell your service manager and your bus where aegisd is:
        systemctl --user link #{opt_lib}/systemd/user/aegisd.service #{opt_lib}/systemd/user/aegisd.socket #{opt_lib}/systemd/user/aegisd-credentials.socket
        mkdir -p ~/.local/share/dbus-1/services
        ln -sf #{opt_share}/dbus-1/services/org.aegisvm.Aegis1.service ~/.local/share/dbus-1/services/
        aegisctl up
      Guests have a network where the distribution's package passt is installed.
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/aegisctl --version")
  end
end
