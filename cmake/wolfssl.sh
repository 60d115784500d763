#!/usr/bin/env bash
# The wolfSSL that net/ is linked with: built once, statically, into a folder that belongs to this user
# alone, because distributions' releases are older than what the Internet throws at a server, and slower
# (README).
#
#     cmake/wolfssl.sh prefix      where it is, or would be
#     cmake/wolfssl.sh build       builds it unless it is there; exit 4: its source is not to be had
#
# The source is the distribution's: of the newest suite that the mirror of this machine has, so that apt
# checks its signatures. Any version from 5.9 on will do: a mirror keeps one at a time. apt's own lists
# are left alone. The folder's name holds what decides over the result: another cmake/wolfssl/user_settings.h,
# or another of these scripts, is another folder.
set -euo pipefail
cd "$(dirname "$0")/.."

least=5.9
key=$(cat cmake/wolfssl.sh cmake/wolfssl/user_settings.h | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-${HOME:-$PWD/build}/.cache}
prefix=$cache/beam/wolfssl-$(uname -m)-$key

# The machine's mirror: what apt itself fetches this distribution from, without its security updates.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' |
        awk -v id="$1" 'tolower($2) == id { print $1; exit }'
}

source_of() { # FOLDER: downloads and unpacks it there; prints where
    local folder=$1 id suite component uri options version
    command -v apt-get >/dev/null || return 4
    id=$(. /etc/os-release && echo "$ID")
    case $id in
    debian) suite=unstable component=main ;;
    ubuntu) suite=devel component=universe ;;
    *) return 4 ;;
    esac
    uri=$(mirror "$id")
    [[ -n $uri ]] || return 4
    mkdir -p "$folder"/{lists/partial,archives/partial,source}
    options="[signed-by=/usr/share/keyrings/$id-archive-keyring.gpg]"
    [[ -e /usr/share/keyrings/$id-archive-keyring.gpg ]] || options=
    echo "deb-src $options $uri $suite $component" >"$folder/sources.list"
    local apt=(-q -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder" -o Dir::Cache::archives="$folder/archives"
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=0 -o Acquire::http::Timeout=20
        -o APT::Update::Error-Mode=any)
    apt-get "${apt[@]}" update >&2 || return 4
    version=$(apt-cache "${apt[@]}" showsrc wolfssl | awk '$1 == "Version:" { print $2; exit }')
    dpkg --compare-versions "$version" ge "$least" || return 4
    (cd "$folder/source" && apt-get "${apt[@]}" source --tar-only wolfssl >&2) || return 4
    tar -xf "$folder"/source/wolfssl_*.orig.tar.* -C "$folder/source" >&2
    dirname "$folder"/source/*/CMakeLists.txt
}

build() {
    [[ ! -e $prefix/lib/libwolfssl.a ]] || return 0
    mkdir -p "$(dirname "$prefix")"
    local work source assembler=no flags
    work=$(mktemp -d "$prefix.XXXXXX")
    # shellcheck disable=SC2064 # the folder's name as it is now
    trap "rm -rf '$work'" EXIT
    source=$(source_of "$work") || exit 4
    flags="-I$PWD/cmake/wolfssl -fvisibility=hidden -Wno-error" # its own build sets it
    if [[ $(uname -m) == x86_64 ]]; then
        assembler=yes # chosen when it runs, by what the processor says; C needs to be told for AES alone
        flags+=" -maes -msse4 -mpclmul"
    fi
    # AES and the rest are switched by the settings; the two variables add the sources in assembler.
    cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_C_FLAGS="$flags" \
        -DCMAKE_ASM_FLAGS="-I$PWD/cmake/wolfssl" -DCMAKE_INSTALL_PREFIX="$work/installed" \
        -DCMAKE_INSTALL_LIBDIR=lib -DWOLFSSL_USER_SETTINGS=yes -DWOLFSSL_INTEL_ASM=$assembler \
        -DWOLFSSL_AESNI=$assembler -DWOLFSSL_EXAMPLES=no -DWOLFSSL_CRYPT_TESTS=no
    cmake --build "$work/build" -j "$(nproc)" --target install
    cp cmake/wolfssl/user_settings.h "$work/installed/include/"
    cp "$source"/{COPYING,LICENSING} "$work/installed/"
    mv -T "$work/installed" "$prefix" 2>/dev/null || [[ -e $prefix/lib/libwolfssl.a ]] # another was faster
}

case ${1:-} in
prefix) echo "$prefix" ;;
build) build ;;
*)
    echo "usage: cmake/wolfssl.sh prefix|build" >&2
    exit 2
    ;;
esac
