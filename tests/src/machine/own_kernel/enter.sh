# Runs a command in a machine with a kernel of its own: with the standard input of
# this shell, which it reads to its end, and its output once it has ended.
#
#   $1 the machine's QEMU    $2 the folder of its doors    $3 how many there are
#   $4... the command
set -eu
qemu=$1 doors=$2 count=$3
shift 3

# Nobody would ever open the other end of a door.
kill -0 "$qemu" 2>/dev/null || {
    echo "the machine has ended" >&2
    exit 255
}

# Takes the first door that nobody uses, else waits for the last one.
door=0
while [ "$door" -lt "$count" ]; do
    door=$((door + 1))
    exec 9>"$doors/$door.lock"
    ! flock --nonblock 9 || break
done
flock 9

id=$$-$(date +%s%N)
# The line break ends what a client that was killed may have left.
{
    printf '\n%s ' "$id"
    printf '%s\0' "$@" | base64 --wrap=0
    printf ' '
    base64 --wrap=0
    echo
} >"$doors/$door.in"
answer=$(grep --max-count=1 "^$id " <"$doors/$door.out")
set -- $answer
printf %s "${3%.}" | base64 --decode
printf %s "${4%.}" | base64 --decode >&2
exit "$2"
