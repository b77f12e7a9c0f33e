"""`python3 -m sergeant_linux`: the command `sergeant-linux`."""

from sergeant_linux.cli.main import main

if __name__ == '__main__':
    main()
