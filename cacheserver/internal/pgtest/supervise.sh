# Runs PostgreSQL for a test process: sh supervise.sh BIN SETTING...
# Obeys the commands on its input, one a line, and answers each with a line. The
# input ends when the test process does, however that ends.
bin=$1
shift
dir=$(mktemp -d) || exit
cd "$dir" || exit
echo "$dir"

server=
end() {
    if [ -n "$server" ]; then
        kill -s "$1" "$server"
        wait "$server"
        server=
    fi
}

while read -r command; do
    case $command in
    init)
        "$bin/initdb" --pgdata=data --auth=trust --username=test --encoding=UTF8 --locale=C --no-sync >>log 2>&1
        echo $?
        ;;
    start)
        "$bin/postgres" -D data -k "$dir" "$@" >>log 2>&1 &
        server=$!
        echo 0
        ;;
    stop)
        end INT
        echo 0
        ;;
    crash)
        end QUIT
        echo 0
        ;;
    esac
done
end QUIT
cd / && rm -rf "$dir"
