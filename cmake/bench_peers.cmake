# Libraries that `beam bench kv-...` measures Beam's documents beside. Each is used where it is found, and a
# row says which was not. Nothing else needs them, or C++. A build with a sanitizer measures nothing, and the
# flags of two languages' sanitizers need not agree: there are none in it.
if(NOT BEAM_BENCH_PEERS OR BEAM_SANITIZE OR BEAM_FUZZ)
    return()
endif()
set(folder ${PROJECT_SOURCE_DIR}/bench)

pkg_check_modules(MSGPACK IMPORTED_TARGET msgpack)
if(MSGPACK_FOUND)
    target_sources(beam PRIVATE ${folder}/kv_msgpack.c)
    target_compile_definitions(beam PRIVATE BENCH_MSGPACK)
    target_link_libraries(beam PRIVATE PkgConfig::MSGPACK)
endif()

pkg_check_modules(JANSSON IMPORTED_TARGET jansson)
if(JANSSON_FOUND)
    target_sources(beam PRIVATE ${folder}/kv_jansson.c)
    target_compile_definitions(beam PRIVATE BENCH_JANSSON)
    target_link_libraries(beam PRIVATE PkgConfig::JANSSON)
endif()

pkg_check_modules(PROTOBUF_C IMPORTED_TARGET libprotobuf-c)
find_program(PROTOC_C protoc-c)
if(PROTOBUF_C_FOUND AND PROTOC_C)
    set(made ${PROJECT_BINARY_DIR}/bench)
    file(MAKE_DIRECTORY ${made})
    add_custom_command(
        OUTPUT ${made}/document.pb-c.c ${made}/document.pb-c.h
        COMMAND ${PROTOC_C} --c_out=${made} --proto_path=${folder} ${folder}/document.proto
        DEPENDS ${folder}/document.proto
        VERBATIM)
    target_sources(beam PRIVATE
        ${folder}/kv_protobuf.c ${made}/document.pb-c.c ${made}/document.pb-c.h)
    target_include_directories(beam SYSTEM PRIVATE ${made})
    target_compile_definitions(beam PRIVATE BENCH_PROTOBUF)
    target_link_libraries(beam PRIVATE PkgConfig::PROTOBUF_C)
endif()

find_path(FLEXBUFFERS_INCLUDE_DIR flatbuffers/flexbuffers.h)
include(CheckLanguage)
check_language(CXX)
if(FLEXBUFFERS_INCLUDE_DIR AND CMAKE_CXX_COMPILER)
    enable_language(CXX)
    add_library(bench_flexbuffers OBJECT ${folder}/kv_flexbuffers.cpp)
    set_target_properties(bench_flexbuffers PROPERTIES
        CXX_STANDARD 17 INTERPROCEDURAL_OPTIMIZATION OFF)
    target_compile_options(bench_flexbuffers PRIVATE -O2)
    # Locales are for text, and would want the library and not its header alone.
    target_compile_definitions(bench_flexbuffers PRIVATE FLATBUFFERS_LOCALE_INDEPENDENT=0)
    target_include_directories(bench_flexbuffers PRIVATE ${PROJECT_SOURCE_DIR})
    target_include_directories(bench_flexbuffers SYSTEM PRIVATE ${FLEXBUFFERS_INCLUDE_DIR})
    target_sources(beam PRIVATE $<TARGET_OBJECTS:bench_flexbuffers>)
    target_compile_definitions(beam PRIVATE BENCH_FLEXBUFFERS)
    # The program stays one of C, linked by its compiler.
    set_target_properties(beam PROPERTIES LINKER_LANGUAGE C)
    target_link_libraries(beam PRIVATE stdc++)
endif()
