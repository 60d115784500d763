# net/: TLS, HTTP/2, HTTP/1.1 and WebSocket, as a library of its own: who speaks over rings and unix
# sockets alone links none of what stands here, and none of its licences.
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2>=1.52)
find_path(WSLAY_INCLUDE_DIR wslay/wslay.h REQUIRED)
find_library(WSLAY_LIBRARY wslay REQUIRED)

# wolfSSL: the one that cmake/wolfssl.sh has built for this user (`./dev deps` does), or the system's.
set(BEAM_WOLFSSL built CACHE STRING "wolfSSL: `built` by ./dev deps where it is, or the `system`'s")
execute_process(COMMAND bash ${PROJECT_SOURCE_DIR}/cmake/wolfssl.sh prefix
    OUTPUT_VARIABLE wolfssl_prefix OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/cmake/wolfssl.sh ${PROJECT_SOURCE_DIR}/cmake/wolfssl/user_settings.h)
add_library(beam_wolfssl INTERFACE)
if(NOT BEAM_WOLFSSL STREQUAL "system" AND EXISTS ${wolfssl_prefix}/lib/libwolfssl.a)
    target_include_directories(beam_wolfssl SYSTEM INTERFACE
        $<BUILD_INTERFACE:${wolfssl_prefix}/include>)
    target_compile_definitions(beam_wolfssl INTERFACE $<BUILD_INTERFACE:WOLFSSL_USER_SETTINGS>)
    # Installed beside libbeam-net.a (install.cmake), under a name that no other wolfSSL has.
    target_link_libraries(beam_wolfssl INTERFACE $<BUILD_INTERFACE:${wolfssl_prefix}/lib/libwolfssl.a>
        $<INSTALL_INTERFACE:$<INSTALL_PREFIX>/${CMAKE_INSTALL_LIBDIR}/libbeam-wolfssl.a> m)
    set(wolfssl_installed ${wolfssl_prefix}) # with COPYING and LICENSING
else()
    pkg_check_modules(WOLFSSL REQUIRED IMPORTED_TARGET wolfssl>=5.5.4)
    target_link_libraries(beam_wolfssl INTERFACE PkgConfig::WOLFSSL)
    if(WOLFSSL_VERSION VERSION_LESS 5.9)
        message(WARNING "wolfSSL ${WOLFSSL_VERSION} is the system's, slower, and lacks fixes unless the "
            "distribution has them: CVE-2023-6937, CVE-2024-0901, CVE-2024-1544, CVE-2024-5814, "
            "CVE-2026-3547, CVE-2026-11703. Do not expose it to the Internet. `./dev deps` builds a newer one.")
    endif()
endif()

# llhttp comes as C that its own generator made; what it makes is not held to our warnings.
find_path(LLHTTP_INCLUDE_DIR llhttp.h PATHS /usr/share/include/llhttp REQUIRED)
find_path(LLHTTP_SOURCE_DIR llhttp.c PATHS /usr/share/llhttp REQUIRED)
add_library(beam_llhttp OBJECT
    ${LLHTTP_SOURCE_DIR}/api.c ${LLHTTP_SOURCE_DIR}/http.c ${LLHTTP_SOURCE_DIR}/llhttp.c)
# Not optimised at link time: without our flags its objects would be for linkers alone that do that.
set_target_properties(beam_llhttp PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden
    INTERPROCEDURAL_OPTIMIZATION OFF INTERPROCEDURAL_OPTIMIZATION_RELEASE OFF)
# Without it bare line feeds end lines, and much more goes through.
target_compile_definitions(beam_llhttp PRIVATE LLHTTP_STRICT_MODE=1)
target_include_directories(beam_llhttp SYSTEM PRIVATE ${LLHTTP_INCLUDE_DIR})

# Not every nghttp2 of a version has the option: distributions mend old ones.
include(CheckSymbolExists)
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::NGHTTP2)
check_symbol_exists(nghttp2_option_set_max_continuations nghttp2/nghttp2.h BEAM_HAVE_NGHTTP2_CONTINUATIONS)
unset(CMAKE_REQUIRED_LIBRARIES)

set(net_needs PkgConfig::NGHTTP2 beam_wolfssl
    $<BUILD_INTERFACE:${WSLAY_LIBRARY}> $<INSTALL_INTERFACE:wslay>)
beam_layer(net/proto PkgConfig::NGHTTP2 beam_wolfssl ${WSLAY_LIBRARY})
if(TARGET beam_net_proto)
    target_compile_definitions(beam_net_proto PRIVATE
        $<$<BOOL:${BEAM_HAVE_NGHTTP2_CONTINUATIONS}>:BEAM_HAVE_NGHTTP2_CONTINUATIONS>)
    target_include_directories(beam_net_proto SYSTEM PRIVATE ${LLHTTP_INCLUDE_DIR} ${WSLAY_INCLUDE_DIR})
    # Sockets, connections, sessions and calls: what has I/O, above the engines.
    beam_layer(net)
    add_library(beam_net_static STATIC
        $<TARGET_OBJECTS:beam_net_proto> $<TARGET_OBJECTS:beam_llhttp>)
    if(TARGET beam_net)
        target_sources(beam_net_static PRIVATE $<TARGET_OBJECTS:beam_net>)
    endif()
    set_target_properties(beam_net_static PROPERTIES OUTPUT_NAME beam-net EXPORT_NAME beam_net_static)
    target_link_libraries(beam_net_static PRIVATE ${net_needs} PUBLIC beam_static)
endif()
