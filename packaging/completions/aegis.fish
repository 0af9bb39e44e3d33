# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_aegis_global_optspecs
    string join \n user system peer= json q/quiet h/help V/version
end

function __fish_aegis_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_aegis_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_aegis_using_subcommand
    set -l cmd (__fish_aegis_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c aegis -n "__fish_aegis_needs_command" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_needs_command" -l user -d 'Use your own service manager: the default for ordinary users, or AEGIS_MODE=user'
complete -c aegis -n "__fish_aegis_needs_command" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_needs_command" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_needs_command" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_needs_command" -s V -l version -d 'Print version'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "run" -d 'Run a command in a fresh microVM that is gone afterwards'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "instance" -d 'Make, change and show instances'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "exec" -d 'Run a command in an instance, which is started or woken if need be'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "attach" -d 'Return to the command of an instance that runs on a terminal'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "console" -d 'Show the serial console of an instance\'s guest: its kernel\'s messages'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "cp" -d 'Copy files between an instance and this host'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "logs" -d 'Show what the command and the daemons of instances wrote'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "top" -d 'Show the processes in the guest of an instance'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "stats" -d 'Show what instances use of this host'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "kill" -d 'Send a signal to the command of instances'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "wait" -d 'Wait until instances are stopped, or as --condition says'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "events" -d 'Show what happens to instances and kits from now on, until Ctrl-C'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "image" -d 'Pull, import, show and remove images'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "login" -d 'Keep the credentials for a registry, once it has accepted them'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "logout" -d 'Forget the credentials for a registry'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "volume" -d 'Keep folders that instances share and that outlive them'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "kit" -d 'Show, check, install and remove kits'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "secret" -d 'Keep values that instances use and nobody sees'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "tether" -d 'Talk to the program in an instance\'s guest, and read what was said'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "chat" -d 'Talk with the program in an instance\'s guest'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "import" -d 'Take over the instances and secrets of the original AegisVM'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "status" -d 'Show whether AegisVM runs, and what it runs'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "doctor" -d 'Check whether this host has what AegisVM needs'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "up" -d 'Start aegisd, now and at every login (in system mode: at boot)'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "down" -d 'Stop aegisd; instances and their daemons keep running'
complete -c aegis -n "__fish_aegis_needs_command" -f -a "version" -d 'Show the versions of aegisctl and, if it runs, aegisd'
complete -c aegis -n "__fish_aegis_using_subcommand run" -l memory -d 'Memory of the guest: a number of MiB, or with suffix, e.g. 512M or 2G' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l cpus -d 'Virtual CPUs' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l accel -d 'What executes the guest: auto, kvm, hvf or tcg' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l platform -d 'What the guest\'s programs are built for: linux/amd64 or linux/arm64; another one than this host\'s is translated' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l workspace -d 'Share a folder as /workspace: a path (with a slash), or the name of one that AegisVM keeps' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -s v -l volume -d 'Show a folder or file of the host, or a named volume that AegisVM keeps, at a path of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l expose -d 'Let a port of this host lead to a TCP port of the guest; without PORT one is chosen' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l network -d 'What the guest reaches: open, which is public addresses, or none' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l allow-host -d 'Let the guest reach this address too, or a port of it; the host\'s 127.0.0.1 is 192.0.0.1 to it' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -s l -l label -d 'Note a label on it, to find it by --filter; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l memory-max -d 'Most memory of this host for the VM, QEMU included; by default the guest\'s and room for QEMU' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l cpu-quota -d 'Most CPU time of this host, in per cent of one CPU; by default one CPU more than the guest has' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l tasks-max -d 'Most processes and threads on this host' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -s e -l env -d 'Set a variable in the guest: to VALUE, to the secret NAME, or without either to the secret KEY; where that is none, to the value of this environment. \'*\' sets one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l secret -d 'Set a variable of this name to the secret KEY, or with \'*\' one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l env-file -d 'Set the variables of a file, a line KEY=VALUE or KEY for each; --env wins over it' -r -F
complete -c aegis -n "__fish_aegis_using_subcommand run" -s w -l workdir -d 'Start in this directory of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -s u -l user -d 'Run as this user of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l image -d 'Boot this image: a name as docker pull takes it, oci:DIR, oci-archive:FILE or docker-archive:FILE; an empty one is the built-in base image' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l entrypoint -d 'Run this in place of the image\'s entry point; \'\' for none' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l pull -d 'Pull the image when it is not here, always (a tag may have moved), or never' -r -f -a "missing\t'When it is not here'
always\t'Each time, since a tag may have moved'
never\t'Never: it is here, or that is an error'"
complete -c aegis -n "__fish_aegis_using_subcommand run" -l insecure-registry -d 'Do not check the certificate of this registry, and let it speak plain HTTP' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l rootfs -d 'Whether programs may write to the root: rw or ro' -r -f -a "rw\t''
ro\t''"
complete -c aegis -n "__fish_aegis_using_subcommand run" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand run" -l insecure -d 'Run without the sandbox where the host forbids it'
complete -c aegis -n "__fish_aegis_using_subcommand run" -s t -l tty -d 'Run it on a terminal'
complete -c aegis -n "__fish_aegis_using_subcommand run" -s i -l interactive -d 'Pass stdin on; this is the default'
complete -c aegis -n "__fish_aegis_using_subcommand run" -s n -l no-stdin -d 'Do not read stdin; the command finds it at its end'
complete -c aegis -n "__fish_aegis_using_subcommand run" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand run" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand run" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "start" -d 'Start an instance; one that does not exist yet is made'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "stop" -d 'Stop an instance until its next use'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "restart" -d 'Stop an instance and start it again, or start it if it is stopped'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "update" -d 'Change the settings of an instance, all that are given or none'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "expose" -d 'Let ports of this host lead to TCP ports of the guest, at once'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "unexpose" -d 'Close ports of this host, at once; their connections go on'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "pause" -d 'Stop the virtual CPUs of an instance; memory is kept'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "resume" -d 'Let a paused instance run on'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "hibernate" -d 'Write the machine of an instance to the disk and end its processes'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "wake" -d 'Let an instance run, be it paused, hibernated or stopped'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "keep-awake" -d 'Keep an instance awake for a time'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "disable" -d 'Turn an instance off until it is enabled again'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "enable" -d 'Let an instance listen on its ports and run its daemons again'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "delete" -d 'Delete an instance with its disk and logs'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "prune" -d 'Delete instances that are disabled or have failed'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "list" -d 'List instances'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "ls" -d 'List instances'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "info" -d 'Show an instance'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "inspect" -d 'Show everything about instances as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "exec" -d 'Run a command in an instance, which is started or woken if need be'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "attach" -d 'Return to the command of an instance that runs on a terminal'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "console" -d 'Show the serial console of an instance\'s guest: its kernel\'s messages'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "cp" -d 'Copy files between an instance and this host'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "logs" -d 'Show what the command and the daemons of instances wrote'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "top" -d 'Show the processes in the guest of an instance'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "stats" -d 'Show what instances use of this host'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "kill" -d 'Send a signal to the command of instances'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "wait" -d 'Wait until instances are stopped, or as --condition says'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and not __fish_seen_subcommand_from start stop restart update expose unexpose pause resume hibernate wake keep-awake disable enable delete prune list ls info inspect exec attach console cp logs top stats kill wait events" -f -a "events" -d 'Show what happens to instances and kits from now on, until Ctrl-C'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l kit -d 'Make it from this kit; explicit flags win over the kit\'s defaults' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l image -d 'Boot this image: a name as docker pull takes it, oci:DIR, oci-archive:FILE or docker-archive:FILE; an empty one is the built-in base image' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l entrypoint -d 'Run this in place of the image\'s entry point; \'\' for none' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l pull -d 'Pull the image when it is not here, always (a tag may have moved), or never' -r -f -a "missing\t'When it is not here'
always\t'Each time, since a tag may have moved'
never\t'Never: it is here, or that is an error'"
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l insecure-registry -d 'Do not check the certificate of this registry, and let it speak plain HTTP' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l rootfs -d 'Whether programs may write to the root: rw or ro' -r -f -a "rw\t''
ro\t''"
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l disk -d 'Most that the guest may write to its disk: a number of MiB, or with suffix' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l capability -d 'Let the guest do more than use its own VM, or less than its kit says; a list has commas' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l name -d 'Its name; without one AegisVM chooses' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l restart -d 'What follows the end of its command: no, on-failure[:N], always or unless-stopped' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l idle-pause -d 'Pause it when nobody has needed it for so long: 60s unless given; or never' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l idle-hibernate -d 'Hibernate it when nobody has needed it for so long: 5m unless given; or never' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l memory -d 'Memory of the guest: a number of MiB, or with suffix, e.g. 512M or 2G' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l cpus -d 'Virtual CPUs' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l accel -d 'What executes the guest: auto, kvm, hvf or tcg' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l platform -d 'What the guest\'s programs are built for: linux/amd64 or linux/arm64; another one than this host\'s is translated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l workspace -d 'Share a folder as /workspace: a path (with a slash), or the name of one that AegisVM keeps' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s v -l volume -d 'Show a folder or file of the host, or a named volume that AegisVM keeps, at a path of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l expose -d 'Let a port of this host lead to a TCP port of the guest; without PORT one is chosen' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l network -d 'What the guest reaches: open, which is public addresses, or none' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l allow-host -d 'Let the guest reach this address too, or a port of it; the host\'s 127.0.0.1 is 192.0.0.1 to it' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s l -l label -d 'Note a label on it, to find it by --filter; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l memory-max -d 'Most memory of this host for the VM, QEMU included; by default the guest\'s and room for QEMU' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l cpu-quota -d 'Most CPU time of this host, in per cent of one CPU; by default one CPU more than the guest has' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l tasks-max -d 'Most processes and threads on this host' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s e -l env -d 'Set a variable in the guest: to VALUE, to the secret NAME, or without either to the secret KEY; where that is none, to the value of this environment. \'*\' sets one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l secret -d 'Set a variable of this name to the secret KEY, or with \'*\' one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l env-file -d 'Set the variables of a file, a line KEY=VALUE or KEY for each; --env wins over it' -r -F
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s w -l workdir -d 'Start in this directory of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s u -l user -d 'Run as this user of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l detach-keys -d 'The keys that detach: single characters or ctrl-KEY, separated by commas; \'\' for none' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l replace -d 'Delete the instance of that name first, with its disk and log; the daemons\' config stays'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l insecure -d 'Run without the sandbox where the host forbids it'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s d -l detach -d 'Return at once; the command runs on'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l no-terminal -d 'Run the command without a terminal: nobody can attach, and its stderr stays apart'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -l grace -d 'Seconds the processes in the guest get to end by themselves' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -l grace -d 'Seconds the processes in the guest get to end by themselves' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from restart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l memory -d 'Memory of the guest: a number of MiB, or with suffix, e.g. 512M or 2G' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l cpus -d 'Virtual CPUs' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l disk -d 'Most that the guest may write to its disk: more than before' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l rootfs -d 'Whether programs may write to the root: rw or ro' -r -f -a "rw\t''
ro\t''"
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l entrypoint -d 'Run this in place of the image\'s entry point; \'\' for none' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s w -l workdir -d 'Start in this directory of the guest; \'\' for the image\'s choice' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s u -l user -d 'Run as this user of the guest; \'\' for the image\'s choice' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l restart -d 'What follows the end of its command: no, on-failure[:N], always or unless-stopped' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l idle-pause -d 'Pause it when nobody has needed it for so long, or never' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l idle-hibernate -d 'Hibernate it when nobody has needed it for so long, or never' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l expose -d 'As `instance expose`' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l expose-remove -d 'As `instance unexpose`' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s v -l volume -d 'Show a folder or file of the host, or a named volume, in the place of what was at that path' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l volume-remove -d 'Show nothing of the host at a path of the guest any more' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l network -d 'What the guest reaches: open, which is public addresses, or none' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l allow-host -d 'Let the guest reach this address too, or a port of it; the host\'s 127.0.0.1 is 192.0.0.1 to it' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l allow-host-remove -d 'Keep the guest from this address again' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l memory-max -d 'Most memory of this host for the VM; 0: what follows from the guest\'s' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l cpu-quota -d 'Most CPU time of this host, in per cent of one CPU; 0: what follows from the guest\'s CPUs' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l tasks-max -d 'Most processes and threads on this host; 0: the default' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s l -l label -d 'Note a label on it, to find it by --filter; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l label-remove -d 'Remove a label' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s e -l env -d 'Set a variable of the instance\'s command and of later execs' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l env-remove -d 'Remove a variable' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l entrypoint-remove -d 'Run the image\'s own entry point again'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l command-remove -d 'Run the image\'s own command again'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l no-terminal -d 'Run the new command without a terminal'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from update" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from expose" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from expose" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from expose" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from expose" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from expose" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from expose" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from unexpose" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from unexpose" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from unexpose" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from unexpose" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from unexpose" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from unexpose" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from pause" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from pause" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from pause" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from pause" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from pause" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from resume" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from resume" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from resume" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from resume" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from resume" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from hibernate" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from hibernate" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from hibernate" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from hibernate" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from hibernate" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from hibernate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wake" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wake" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wake" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wake" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wake" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wake" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l for -d 'For so long from now, e.g. 10m' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l reason -d 'What for; \'by hand\' unless given' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l end -d 'Let it sleep again, as far as this reason goes; without --reason, all of them'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from keep-awake" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from disable" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from disable" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from disable" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from disable" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from disable" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from enable" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from enable" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from enable" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from enable" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from enable" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -l purge -d 'Delete the configuration of its daemons too'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l older-than -d 'Only those that have been so for longer than this, e.g. 24h or 7d' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -s f -l filter -d 'Only instances that match: name=, state=, kit=, enabled= or label=KEY[=VALUE]; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l stopped -d 'Those that are stopped, but would be woken by their next use, too'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l dry-run -d 'Show what would be deleted'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l force -d 'Do not ask'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -s f -l filter -d 'Only instances that match: name=, state=, kit=, enabled= or label=KEY[=VALUE]; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -s f -l filter -d 'Only instances that match: name=, state=, kit=, enabled= or label=KEY[=VALUE]; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from info" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from info" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from info" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from info" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from info" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s e -l env -d 'Set a variable in the guest: to VALUE, to the secret NAME, or without either to the secret KEY; where that is none, to the value of this environment. \'*\' sets one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -l secret -d 'Set a variable of this name to the secret KEY, or with \'*\' one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -l env-file -d 'Set the variables of a file, a line KEY=VALUE or KEY for each; --env wins over it' -r -F
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s w -l workdir -d 'Start in this directory of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s u -l user -d 'Run as this user of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s t -l tty -d 'Run it on a terminal'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s i -l interactive -d 'Pass stdin on; this is the default'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s n -l no-stdin -d 'Do not read stdin; the command finds it at its end'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -l detach-keys -d 'The keys that detach: single characters or ctrl-KEY, separated by commas; \'\' for none' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -s n -l tail -d 'Only the last lines' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -s f -l follow -d 'Go on with what comes from now on, until Ctrl-C'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from console" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -s a -l archive -d 'Keep owners too (uid and gid); on this host that takes root'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -s L -l follow-link -d 'Copy what the source leads to, if it is a symbolic link'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from cp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l since -d 'Only what was written since: 10m or -1h for so long ago, a date, RFC 3339' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l until -d 'Only what was written until then' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -s n -l tail -d 'Only the last N lines' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l daemon -d 'Only what this daemon wrote; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -s f -l follow -d 'Go on with what they write from now on, until Ctrl-C'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -s t -l timestamps -d 'Begin every line with its time'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l command -d 'Only what the command wrote'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l all -d 'What AegisVM and the service manager say about the instance as well'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -s f -l filter -d 'Only instances that match: name=, state=, kit=, enabled= or label=KEY[=VALUE]; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l interval -d 'Time between two readings' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l no-stream -d 'Show the figures once'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -s s -l signal -d 'The signal: a name, with or without SIG, or a number' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from kill" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -l condition -d 'What to wait for' -r -f -a "stopped\t'No VM runs: stopped, disabled or failed'
running\t'The guest answers'
ready\t'The guest answers and every daemon runs or has ended with success'
deleted\t'There is no such instance any more'"
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -l timeout -d 'Give up after this long, e.g. 30s or 5m' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -s f -l filter -d 'Only such events: type=instance|kit|aegisd, name=NAME or event=created|deleted|changed|state|started|ended; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -l user
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand instance; and __fish_seen_subcommand_from events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s e -l env -d 'Set a variable in the guest: to VALUE, to the secret NAME, or without either to the secret KEY; where that is none, to the value of this environment. \'*\' sets one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand exec" -l secret -d 'Set a variable of this name to the secret KEY, or with \'*\' one for every secret' -r
complete -c aegis -n "__fish_aegis_using_subcommand exec" -l env-file -d 'Set the variables of a file, a line KEY=VALUE or KEY for each; --env wins over it' -r -F
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s w -l workdir -d 'Start in this directory of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s u -l user -d 'Run as this user of the guest' -r
complete -c aegis -n "__fish_aegis_using_subcommand exec" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s t -l tty -d 'Run it on a terminal'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s i -l interactive -d 'Pass stdin on; this is the default'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s n -l no-stdin -d 'Do not read stdin; the command finds it at its end'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand attach" -l detach-keys -d 'The keys that detach: single characters or ctrl-KEY, separated by commas; \'\' for none' -r
complete -c aegis -n "__fish_aegis_using_subcommand attach" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand attach" -l user
complete -c aegis -n "__fish_aegis_using_subcommand attach" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand attach" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand attach" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand console" -s n -l tail -d 'Only the last lines' -r
complete -c aegis -n "__fish_aegis_using_subcommand console" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand console" -s f -l follow -d 'Go on with what comes from now on, until Ctrl-C'
complete -c aegis -n "__fish_aegis_using_subcommand console" -l user
complete -c aegis -n "__fish_aegis_using_subcommand console" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand console" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand console" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand console" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand cp" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand cp" -s a -l archive -d 'Keep owners too (uid and gid); on this host that takes root'
complete -c aegis -n "__fish_aegis_using_subcommand cp" -s L -l follow-link -d 'Copy what the source leads to, if it is a symbolic link'
complete -c aegis -n "__fish_aegis_using_subcommand cp" -l user
complete -c aegis -n "__fish_aegis_using_subcommand cp" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand cp" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand cp" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand cp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l since -d 'Only what was written since: 10m or -1h for so long ago, a date, RFC 3339' -r
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l until -d 'Only what was written until then' -r
complete -c aegis -n "__fish_aegis_using_subcommand logs" -s n -l tail -d 'Only the last N lines' -r
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l daemon -d 'Only what this daemon wrote; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand logs" -s f -l follow -d 'Go on with what they write from now on, until Ctrl-C'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -s t -l timestamps -d 'Begin every line with its time'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l command -d 'Only what the command wrote'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l all -d 'What AegisVM and the service manager say about the instance as well'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l user
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand top" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand top" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand top" -l user
complete -c aegis -n "__fish_aegis_using_subcommand top" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand top" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand top" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand stats" -s f -l filter -d 'Only instances that match: name=, state=, kit=, enabled= or label=KEY[=VALUE]; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l interval -d 'Time between two readings' -r
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l no-stream -d 'Show the figures once'
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l user
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand stats" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand stats" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kill" -s s -l signal -d 'The signal: a name, with or without SIG, or a number' -r
complete -c aegis -n "__fish_aegis_using_subcommand kill" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kill" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kill" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kill" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kill" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kill" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand wait" -l condition -d 'What to wait for' -r -f -a "stopped\t'No VM runs: stopped, disabled or failed'
running\t'The guest answers'
ready\t'The guest answers and every daemon runs or has ended with success'
deleted\t'There is no such instance any more'"
complete -c aegis -n "__fish_aegis_using_subcommand wait" -l timeout -d 'Give up after this long, e.g. 30s or 5m' -r
complete -c aegis -n "__fish_aegis_using_subcommand wait" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand wait" -l user
complete -c aegis -n "__fish_aegis_using_subcommand wait" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand wait" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand wait" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand events" -s f -l filter -d 'Only such events: type=instance|kit|aegisd, name=NAME or event=created|deleted|changed|state|started|ended; may be repeated' -r
complete -c aegis -n "__fish_aegis_using_subcommand events" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand events" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand events" -l user
complete -c aegis -n "__fish_aegis_using_subcommand events" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand events" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand events" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "pull" -d 'Bring an image here, or look up again what its tag means'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "import" -d 'Make an image of a tar archive of files'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "list" -d 'List the images that are here'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "ls" -d 'List the images that are here'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "inspect" -d 'Show everything about an image, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "remove" -d 'Remove an image that no instance uses, or one of its names'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "rm" -d 'Remove an image that no instance uses, or one of its names'
complete -c aegis -n "__fish_aegis_using_subcommand image; and not __fish_seen_subcommand_from pull import list ls inspect remove rm prune" -f -a "prune" -d 'Remove the images without a name that no instance uses, and layers that nothing needs'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l insecure-registry -d 'Do not check the certificate of this registry, and let it speak plain HTTP' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l platform -d 'Which of the images of that name; by default that for this host' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l insecure -d 'Pull without the sandbox where the host forbids it'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -s c -l change -d 'Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER or WORKDIR' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -s m -l message -d 'Say this of it in the image\'s history' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -l platform -d 'The platform of its programs; by default that of this host' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -l insecure -d 'Import without the sandbox where the host forbids it'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from inspect" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from inspect" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from inspect" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from inspect" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from inspect" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from remove" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from remove" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from remove" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from remove" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from rm" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from rm" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from rm" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from rm" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from rm" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -s a -l all -d 'Those with a name too'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -l dry-run -d 'Only say what would go'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -l user
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand image; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand login" -s u -l username -d 'The user\'s name there' -r
complete -c aegis -n "__fish_aegis_using_subcommand login" -l insecure-registry -d 'Do not check the certificate of this registry, and let it speak plain HTTP' -r
complete -c aegis -n "__fish_aegis_using_subcommand login" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand login" -l password-stdin -d 'Read the password from stdin, also where that is a terminal'
complete -c aegis -n "__fish_aegis_using_subcommand login" -l user
complete -c aegis -n "__fish_aegis_using_subcommand login" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand login" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand login" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand login" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand logout" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand logout" -l user
complete -c aegis -n "__fish_aegis_using_subcommand logout" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand logout" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand logout" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand logout" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "create" -d 'Make an empty volume'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "list" -d 'List the named volumes'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "ls" -d 'List the named volumes'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "inspect" -d 'Show everything about volumes, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "remove" -d 'Remove volumes that no instance uses, with all that is in them'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "rm" -d 'Remove volumes that no instance uses, with all that is in them'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and not __fish_seen_subcommand_from create list ls inspect remove rm prune" -f -a "prune" -d 'Remove the named volumes that no instance uses, with all that is in them'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from create" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from create" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from create" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from create" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from create" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from inspect" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from inspect" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from inspect" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from inspect" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from inspect" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from remove" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from remove" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from remove" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from remove" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from rm" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from rm" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from rm" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from rm" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from rm" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -l dry-run -d 'Only say what would go'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -l force -d 'Do not ask'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -l user
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand volume; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "list" -d 'List the installed kits'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "ls" -d 'List the installed kits'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "info" -d 'Show a kit: where it and its programs lie, and what its daemons may do'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "validate" -d 'Check a kit\'s folder, or one manifest, without installing it'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "install" -d 'Install a kit from a folder, or replace the one of its name'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "remove" -d 'Remove a kit that was installed from a folder'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and not __fish_seen_subcommand_from list ls info validate install remove rm" -f -a "rm" -d 'Remove a kit that was installed from a folder'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -l format -d 'Print `json`, a line for each from a template, e.g. \'{{.Name}}\', or a table: \'table {{.Name}}\\t{{.State}}\'' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from info" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from info" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from info" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from info" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from info" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -l name -d 'The kit\'s name, where the folder has several manifests' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from validate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -l name -d 'The kit\'s name, where the folder has several manifests' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -s f -l force -d 'Also while instances use it: they keep their programs until they are deleted'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -s f -l force -d 'Also while instances use it: they keep their programs until they are deleted'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -l user
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand kit; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "set" -d 'Keep a value under a name'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "import" -d 'Keep the values of a file of variables as secrets, all or none'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "list" -d 'List the secrets, without their values'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "ls" -d 'List the secrets, without their values'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "delete" -d 'Forget a secret'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "rm" -d 'Forget a secret'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "log" -d 'Show who was given a secret and when, as the journal has it'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "status" -d 'Show how secrets are kept: what seals their key, and whether it opens'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and not __fish_seen_subcommand_from set import list ls delete rm log status rotate-key" -f -a "rotate-key" -d 'Encrypt every value with a new key, which the host seals if it can'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -l from-file -d 'Read the value from this file; - is stdin' -r -F
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -l apply -d 'List the daemons and guests that have an older value, and start them anew'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -l replace -d 'Set those too that are there already; instances have the new value from their next start on'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -l apply -d 'List the daemons and guests that have an older value, and start them anew'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from list" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from list" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from list" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from list" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from list" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from ls" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from ls" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from ls" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from ls" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -s f -l force -d 'Even if instances use it; their next start fails'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -s f -l force -d 'Even if instances use it; their next start fails'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -l since -d 'Only uses since: 10m or -1h for so long ago, a date, RFC 3339' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from status" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from status" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from status" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from status" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from status" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rotate-key" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rotate-key" -l user
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rotate-key" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rotate-key" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rotate-key" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand secret; and __fish_seen_subcommand_from rotate-key" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -f -a "send" -d 'Send a message to the program in an instance\'s guest, which is woken for it'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -f -a "read" -d 'Show the messages that are kept of an instance'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and not __fish_seen_subcommand_from send read follow" -f -a "follow" -d 'Show the messages of an instance as they come, until Ctrl-C'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l channel -d 'The channel' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l session -d 'The session of the channel' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l msg-id -d 'What the message is called: of a session each name is taken once' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l frame -d 'Send this frame, a JSON object' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l timeout -d 'How long to wait' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l wait -d 'Wait for the answer and print it'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l user
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l channel -d 'Only of this channel, e.g. telegram' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l session -d 'Only of this session of a channel' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l type -d 'Only of this type, e.g. user.message' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l after -d 'Only those behind the message of this number' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l tail -d 'Only the last of them' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l user
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from read" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l channel -d 'Only of this channel, e.g. telegram' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l session -d 'Only of this session of a channel' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l after -d 'Begin behind the message of this number; without it, with what comes' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l user
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand tether; and __fish_seen_subcommand_from follow" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l session -d 'The conversation; one that is not there begins' -r
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l channel -d 'The channel of the conversation' -r
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l history -d 'So many messages of before are shown' -r
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l user
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand chat" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand chat" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand chat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand import" -l from -d 'The folder of the original, usually ~/.aegis' -r -F
complete -c aegis -n "__fish_aegis_using_subcommand import" -l skip -d 'Leave out this instance' -r
complete -c aegis -n "__fish_aegis_using_subcommand import" -l rename -d 'Give an instance another name here' -r
complete -c aegis -n "__fish_aegis_using_subcommand import" -l insecure-registry -d 'Do not check the certificate of this registry, and let it speak plain HTTP' -r
complete -c aegis -n "__fish_aegis_using_subcommand import" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand import" -l dry-run -d 'Say what would be made, and make nothing'
complete -c aegis -n "__fish_aegis_using_subcommand import" -l replace-secrets -d 'Set secrets that are here already to the values they have there'
complete -c aegis -n "__fish_aegis_using_subcommand import" -l without-secrets -d 'Leave the values of secrets there; those that instances need must be here'
complete -c aegis -n "__fish_aegis_using_subcommand import" -l user
complete -c aegis -n "__fish_aegis_using_subcommand import" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand import" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand import" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand status" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand status" -l user
complete -c aegis -n "__fish_aegis_using_subcommand status" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand status" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand status" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -l fix -d 'Repair what can be repaired, then check again'
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -l user
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand up" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand up" -l user
complete -c aegis -n "__fish_aegis_using_subcommand up" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand up" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand up" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand up" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand down" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand down" -l all -d 'Stop all instances, their daemons and ports first'
complete -c aegis -n "__fish_aegis_using_subcommand down" -l user
complete -c aegis -n "__fish_aegis_using_subcommand down" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand down" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand down" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand down" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c aegis -n "__fish_aegis_using_subcommand version" -l peer -d 'Speak to aegisd on this socket of its own, with no bus between, or AEGIS_PEER_ADDRESS' -r
complete -c aegis -n "__fish_aegis_using_subcommand version" -l user
complete -c aegis -n "__fish_aegis_using_subcommand version" -l system -d 'Use the system\'s service manager: the default for root, or AEGIS_MODE=system'
complete -c aegis -n "__fish_aegis_using_subcommand version" -l json -d 'Print data, and errors, as JSON'
complete -c aegis -n "__fish_aegis_using_subcommand version" -s q -l quiet -d 'No progress and no notes on stderr; lists print names alone'
complete -c aegis -n "__fish_aegis_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
