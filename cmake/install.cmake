include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Beam)

install(TARGETS ${libraries} EXPORT BeamTargets)
if(TARGET beam)
    install(TARGETS beam)
endif()
install(DIRECTORY include/beam DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

if(BEAM_XML)
    set(pc_requires ", expat")
endif()
configure_file(cmake/beam.pc.in beam.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/beam.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# libbeam-net: the archive alone. It is made of the same private parts as libbeam.a, which libbeam.so does
# not show; and it brings the licence of its TLS library along (README).
if(TARGET beam_net_static)
    install(TARGETS beam_net_static beam_wolfssl EXPORT BeamNetTargets)
    install(EXPORT BeamNetTargets NAMESPACE Beam:: DESTINATION ${package_dir})
    set(net_requires "liburing >= 2.3, libnghttp2 >= 1.52${pc_requires}")
    if(wolfssl_installed)
        set(net_libs "-lbeam-wolfssl")
        install(FILES ${wolfssl_installed}/lib/libwolfssl.a RENAME libbeam-wolfssl.a
            DESTINATION ${CMAKE_INSTALL_LIBDIR})
        install(FILES ${wolfssl_installed}/COPYING ${wolfssl_installed}/LICENSING
            DESTINATION ${CMAKE_INSTALL_DOCDIR}/wolfssl)
    else()
        string(APPEND net_requires ", wolfssl >= 5.5.4")
    endif()
    configure_file(cmake/beam-net.pc.in beam-net.pc @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/beam-net.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

install(EXPORT BeamTargets NAMESPACE Beam:: DESTINATION ${package_dir})
configure_package_config_file(cmake/BeamConfig.cmake.in BeamConfig.cmake
    INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(BeamConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    ${CMAKE_CURRENT_BINARY_DIR}/BeamConfig.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/BeamConfigVersion.cmake
    DESTINATION ${package_dir})
