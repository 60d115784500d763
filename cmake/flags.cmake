# beam_flags: what every file of this project is compiled with, and no file of its users.
include(CheckCCompilerFlag)

add_library(beam_flags INTERFACE)
target_include_directories(beam_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
# Empty, so that a file may define it too.
target_compile_definitions(beam_flags INTERFACE _GNU_SOURCE= BEAM_VERSION="${PROJECT_VERSION}")
target_compile_options(beam_flags INTERFACE
    -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
    -Wwrite-strings -Wformat=2 -Wconversion -Wno-sign-conversion -Wno-unused-parameter
    # snprintf is called to cut what is too long.
    $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>
    -fno-common -fno-strict-aliasing)

# gcc clears a struct of a hundred bytes with `rep stos`: slow to start, and what it stored cannot be
# forwarded to the loads behind it, which then wait for lines that another core holds.
set(plain_stores -mmemset-strategy=vector_loop:512:noalign,libcall:-1:noalign)
check_c_compiler_flag(${plain_stores} BEAM_HAS_MEMSET_STRATEGY)
target_compile_options(beam_flags INTERFACE $<$<BOOL:${BEAM_HAS_MEMSET_STRATEGY}>:${plain_stores}>)

if(BEAM_SANITIZE)
    target_compile_options(beam_flags INTERFACE
        -fsanitize=${BEAM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${BEAM_SANITIZE})
endif()
if(BEAM_FUZZ)
    target_compile_options(beam_flags INTERFACE -fsanitize=fuzzer-no-link)
    add_link_options(-fsanitize=fuzzer-no-link)
endif()

# Hardening: a server that passes descriptors is worth the few percent.
set(release $<CONFIG:Release>)
check_c_compiler_flag(-fcf-protection=full BEAM_HAS_CF_PROTECTION)
check_c_compiler_flag(-fstack-clash-protection BEAM_HAS_STACK_CLASH)
target_compile_options(beam_flags INTERFACE
    $<${release}:-fstack-protector-strong>
    $<$<AND:${release},$<BOOL:${BEAM_HAS_CF_PROTECTION}>>:-fcf-protection=full>
    $<$<AND:${release},$<BOOL:${BEAM_HAS_STACK_CLASH}>>:-fstack-clash-protection>
    # Undefined first: some distributions define it themselves.
    $<${release}:-U_FORTIFY_SOURCE> $<${release}:-D_FORTIFY_SOURCE=2>)
add_link_options($<${release}:-Wl,-z,relro,-z,now,-z,noexecstack>)

# A message passes through a dozen small functions of as many files; across files they are inlined only at
# link time. Fat objects: the archive is for linkers that know nothing of it, too.
include(CheckIPOSupported)
check_ipo_supported(RESULT BEAM_HAS_LTO OUTPUT why_not LANGUAGES C)
if(BEAM_HAS_LTO AND CMAKE_C_COMPILER_ID STREQUAL "GNU" AND NOT BEAM_SANITIZE AND NOT BEAM_FUZZ)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION_RELEASE ON)
    target_compile_options(beam_flags INTERFACE $<${release}:-ffat-lto-objects>)
endif()

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
