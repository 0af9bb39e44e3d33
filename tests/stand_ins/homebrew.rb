# A stand-in for Homebrew, which cannot be had here: it reads one formula as `brew install`
# would, checks what it declares, and runs its `install`.
#
#   ruby homebrew.rb linux|macos FORMULA TARBALL PREFIX [RESOURCE...]
#
# The first word is the system that the formula is told it runs on.
#
# PREFIX becomes a Homebrew prefix: the files go into Cellar/NAME/VERSION, opt/NAME leads
# there, and what Homebrew links of a keg (bin, lib, share, not libexec) is linked.
# Enforced of the contract of https://docs.brew.sh/Formula-Cookbook: a formula calls only
# what it may (anything else is no method here), declares desc, homepage, url, sha256 and
# license, the tarball has that name and checksum, so has each of the formula's resources,
# all of which are installed, `install` is run in the tarball's one folder, no command of it
# fails, it puts something into the keg, a service runs a program of the keg or has a unit
# or property list there by its name, and the caveats can be said. What is declared for the
# other system alone does not count.
require "digest"
require "fileutils"
require "pathname"
require "tmpdir"

# Runs a block in the one folder of a tarball.
def in_folder_of(tarball)
  Dir.mktmpdir do |folder|
    raise "tar failed" unless Kernel.system("tar", "-xf", tarball.to_s, "-C", folder)

    folders = Pathname(folder).children
    raise "not one folder in #{tarball.basename}" unless folders.one?

    Dir.chdir(folders.first) { yield }
  end
end

def check(what, declared, tarball)
  raise "the url of #{what} ends in another name" unless declared[:url].end_with?("/#{tarball.basename}")
  raise "another checksum of #{what}" unless Digest::SHA256.file(tarball.to_s).hexdigest == declared[:sha256]
end

class Pathname
  # Of a resource: all that is in its one folder. Else files of the folder it is called in.
  def install(*sources)
    mkpath
    return FileUtils.mv(sources.flatten, self) unless sources.first.is_a?(Resource)

    sources.each { |resource| in_folder_of(resource.fetch) { FileUtils.mv(Pathname.pwd.children, self) } }
  end

  # Each by its own name, or by the one that it leads to.
  def install_symlink(*targets)
    mkpath
    names = targets.flat_map { |target| target.is_a?(Hash) ? target.to_a : [[target, Pathname(target).basename]] }
    names.each { |target, name| FileUtils.ln_sf(Pathname(target).relative_path_from(realpath), self / name) }
  end
end

# What a formula may ask about the system.
module OS
  def self.mac? = SYSTEM == :macos
end

class Service
  attr_reader :command, :names

  def initialize(formula)
    @formula = formula
  end

  def name(linux:, macos:)
    [linux, macos].each { |it| raise "a service's name is text" unless it.is_a?(String) }
    @names = { linux: "#{linux}.service", macos: "#{macos}.plist" }
  end

  def run(command = nil, **of_systems)
    raise "run for #{of_systems.keys}" unless (of_systems.keys - [:linux, :macos]).empty?

    @command = command || of_systems[SYSTEM]
  end

  def keep_alive(value)
    raise "keep_alive is true or false" unless [true, false].include?(value)
  end

  def opt_libexec = @formula.opt_prefix / "libexec"
end

class Resource
  attr_reader :declared, :is_used
  attr_writer :tarball

  def initialize
    @declared = {}
  end

  [:url, :sha256].each do |key|
    define_method(key) do |value|
      raise "#{key} is declared twice" if declared.key?(key)

      declared[key] = value
    end
  end

  def fetch
    @is_used = true
    @tarball
  end
end

class Formula
  class << self
    attr_reader :declared, :needs, :resources, :service_block, :test_block

    def inherited(formula)
      super
      formula.instance_variable_set(:@declared, {})
      formula.instance_variable_set(:@needs, [])
      formula.instance_variable_set(:@resources, {})
    end

    [:desc, :homepage, :url, :version, :sha256, :license].each do |key|
      define_method(key) do |value|
        raise "#{key} is declared twice" if declared.key?(key)

        declared[key] = value
      end
    end

    def depends_on(what)
      known = [:linux, { arch: :x86_64 }, { arch: :arm64 }, { "rust" => :build }]
      raise "depends_on #{what.inspect}" unless what.is_a?(String) || known.include?(what)

      needs << what
    end

    def on_linux = OS.mac? || yield

    def on_macos = !OS.mac? || yield

    def resource(name, &block)
      raise "the resource #{name} is declared twice" if resources.key?(name)

      resources[name] = Resource.new.tap { |it| it.instance_eval(&block) }
    end

    def service(&block)
      @service_block = block
    end

    def test(&block)
      @test_block = block
    end
  end

  attr_reader :prefix, :opt_prefix

  def initialize(brew, name)
    version = self.class.declared.fetch(:version)
    @prefix = brew / "Cellar" / name / version
    @opt_prefix = brew / "opt" / name
  end

  [:bin, :lib, :libexec, :share].each do |folder|
    define_method(folder) { prefix / folder.to_s }
    define_method(:"opt_#{folder}") { opt_prefix / folder.to_s }
  end

  def bash_completion = prefix / "etc/bash_completion.d"

  def fish_completion = share / "fish/vendor_completions.d"

  def zsh_completion = share / "zsh/site-functions"

  def man1 = share / "man/man1"

  def resource(name) = self.class.resources.fetch(name)

  def inreplace(path, before, after)
    text = File.read(path)
    raise "#{path} has no #{before}" unless text.include?(before)

    File.write(path, text.gsub(before, after.to_s))
  end

  def system(*command)
    words = command.map(&:to_s)
    raise "#{words.join(" ")} failed" unless Kernel.system(*words)
  end
end

# The folders of a keg that `brew link` links; of libexec nothing.
LINKED = ["bin", "etc", "include", "lib", "sbin", "share", "var"].freeze

def link(keg, brew)
  LINKED.map { |folder| keg / folder }.select(&:directory?).each do |folder|
    folder.find do |path|
      next if path.directory? && !path.symlink?

      target = brew / path.relative_path_from(keg)
      target.dirname.mkpath
      raise "#{target} is there already" if target.symlink? || target.exist?

      FileUtils.ln_s(path, target)
    end
  end
end

SYSTEM = ARGV.shift.to_sym
raise "the system is linux or macos" unless [:linux, :macos].include?(SYSTEM)

formula_path, tarball, brew, *fetched = ARGV.map { |argument| Pathname(argument).expand_path }
name = formula_path.basename(".rb").to_s
load formula_path.to_s
formula_class = Object.const_get(name.split("-").map(&:capitalize).join)
declared = formula_class.declared
[:desc, :homepage, :url, :sha256, :license].each { |key| raise "no #{key}" unless declared[key] }
raise "desc is longer than 80" if declared[:desc].length > 80
check(name, declared, tarball)
resources = formula_class.resources
raise "the resources are not those that were fetched" unless resources.length == fetched.length

resources.each.zip(fetched) do |(title, resource), path|
  check(title, resource.declared, path)
  resource.tarball = path
end

formula = formula_class.new(brew, name)
formula.prefix.dirname.mkpath
in_folder_of(tarball) { formula.install }
resources.each { |title, resource| raise "the resource #{title} is not used" unless resource.is_used }
raise "nothing was installed" unless formula.prefix.directory?

formula.opt_prefix.dirname.mkpath
FileUtils.ln_s(formula.prefix, formula.opt_prefix)
link(formula.prefix, brew)
if formula_class.service_block
  service = Service.new(formula)
  service.instance_eval(&formula_class.service_block)
  if service.command
    program = Pathname(service.command.first)
    raise "#{program} is no program" unless program.executable?
  else
    installed = formula.opt_prefix / service.names.fetch(SYSTEM)
    raise "#{installed} is not there" unless installed.file?
  end
end
puts formula.caveats if formula.respond_to?(:caveats)
