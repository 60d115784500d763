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

install(EXPORT BeamTargets NAMESPACE Beam:: DESTINATION ${package_dir})
configure_package_config_file(cmake/BeamConfig.cmake.in BeamConfig.cmake
    INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(BeamConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    ${CMAKE_CURRENT_BINARY_DIR}/BeamConfig.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/BeamConfigVersion.cmake
    DESTINATION ${package_dir})
