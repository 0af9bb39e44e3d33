class AegisvmAgentKit < Formula
  desc "LLM agent in a microVM, for AegisVM"
  homepage "https://github.com/xfeldman/aegisvm"
  url "https://github.com/xfeldman/aegisvm/releases/download/v@VERSION@/@SOURCE@"
  version "@VERSION@"
  sha256 "@SHA256@"
  license "Apache-2.0"

  depends_on arch: :x86_64
  depends_on "aegisvm"
  depends_on :linux

  def install
    system "./install", "--prefix", prefix, "--opt", opt_prefix, "aegisvm-agent-kit"
    # aegisd looks for programs of kits in Homebrew's bin; libexec is not linked there.
    bin.install_symlink libexec/"aegisvm/aegis-gateway", libexec/"aegisvm/aegis-agent"
  end

  test do
    assert_path_exists share/"aegisvm/kits/agent.json"
  end
end
