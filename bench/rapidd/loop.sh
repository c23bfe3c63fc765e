# What stands on many hosts in place of a power daemon: look with nvidia-smi, compare, set what differs, sleep.
#
#     bash loop.sh each|stream GRANT FALLBACK_WATTS PAUSE_MS GPUS
#
# each: one nvidia-smi for every look; stream: one that goes on looking. GRANT holds "watts until", the end of the lease
# in microseconds of the wall clock. Each look at which every GPU has the limit that is wanted prints that limit.
grant=$2 fallback=$3 pause_ms=$4 gpus=$5
printf -v seconds "%d.%03d" $((pause_ms / 1000)) $((pause_ms % 1000))
query="--query-gpu=index,enforced.power.limit,power.limit,power.draw --format=csv,noheader,nounits"

wanted() {
    read -r watts until < "$grant"
    ((${EPOCHREALTIME/./} < until)) || watts=$fallback
}

# Of one line: remember a GPU whose limit is not the one that is wanted.
compare() {
    [[ $3 == "$watts.00" ]] || off+=,$1
}

# After the last line of a look; true if nothing had to be set.
settle() {
    [[ -z $off ]] && echo "$watts" && return
    nvidia-smi -i "${off:1}" -pl "$watts" > /dev/null
    return 1
}

if [[ $1 == each ]]; then
    while :; do
        wanted
        off=
        while IFS=', ' read -r index enforced requested draw; do
            compare "$index" "$enforced" "$requested"
        done < <(nvidia-smi $query)
        settle && sleep "$seconds" # what was set is looked at again at once
    done
else
    while IFS=', ' read -r index enforced requested draw; do
        ((index > 0)) || { wanted; off=; }
        compare "$index" "$enforced" "$requested"
        ((index + 1 < gpus)) || settle
    done < <(nvidia-smi $query -lms "$pause_ms")
fi
