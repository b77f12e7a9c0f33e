# PYTHON_ARGCOMPLETE_OK
"""`sergeant-linux`, and `python3 -m sergeant_linux`."""

from sergeant_linux.kernel import module_path

module_path.leave_working_folder()  # before anything is imported that could lie there

from sergeant_linux.cli.main import main  # noqa: E402  # after that

if __name__ == '__main__':
    main()
