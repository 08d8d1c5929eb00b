import { type CommandModule, completeCommand } from './command.ts'
import { quote } from './connection.ts'
import { UsageError } from './failure.ts'
import { oneOf } from './options.ts'

export const shells = ['bash', 'zsh', 'fish'] as const

/** What the scripts get a line: a word, then perhaps a tab and what it is; `:files` asks for names of files. */
const scripts: Readonly<Record<(typeof shells)[number], (ask: string) => string>> = {
  // Words are cut by read, not by eval: nothing that is typed is run. Bash replaces only what follows the last : or =.
  bash: (ask) => `# Completion of plasmavmc for bash. For this shell: source <(plasmavmc completion bash)
_plasmavmc() {
  local line=\${COMP_LINE:0:COMP_POINT} word cut=
  local -a words
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  [[ \${words[-1]} =~ ^.*[:=] ]] && cut=\${BASH_REMATCH[0]}
  COMPREPLY=()
  while IFS=$'\\t' read -r word _; do
    case $word in
      :files) compopt -o default ;;
      ?*)
        [[ $word == *[/=] ]] && compopt -o nospace
        COMPREPLY+=("\${word#"$cut"}")
        ;;
    esac
  done < <(${ask} "\${words[@]:1}" 2>/dev/null)
}
complete -F _plasmavmc plasmavmc
`,
  zsh: (ask) => `#compdef plasmavmc
# Completion of plasmavmc for zsh. For this shell: source <(plasmavmc completion zsh)
_plasmavmc() {
  local -a items
  local line word
  for line in "\${(@f)$(${ask} "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    word=\${line%%$'\\t'*}
    case $line in
      '') ;;
      :files) _files; return ;;
      *$'\\t'*) items+=("\${word//:/\\\\:}:\${line#*$'\\t'}") ;;
      *) items+=("\${word//:/\\\\:}") ;;
    esac
  done
  _describe plasmavmc items
}
if [ "$funcstack[1]" = _plasmavmc ]; then _plasmavmc "$@"; else compdef _plasmavmc plasmavmc; fi
`,
  fish: (ask) => `# Completion of plasmavmc for fish. For this shell: plasmavmc completion fish | source
function __plasmavmc_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test (count $current) -eq 0; and set current ''
    set -l lines (${ask} $words[2..-1] $current 2>/dev/null)
    if contains -- :files $lines
        __fish_complete_path $current
    else
        string join \\n -- $lines
    end
end
complete -c plasmavmc -e
complete -c plasmavmc -f -a '(__plasmavmc_complete)'
`,
}

export const command: CommandModule<{ readonly output?: string }> = {
  define: (c) =>
    void c
      .argument('<shell>', shells.join(', '))
      .option('-o, --output <format>', 'json: only how errors are written'),
  examples: [
    'completion bash > /etc/bash_completion.d/plasmavmc',
    'completion fish > ~/.config/fish/completions/plasmavmc.fish',
  ],
  run: async ({ args }, io) => {
    const [name] = args
    if (name === undefined) throw new UsageError('no shell given', `shells are: ${shells.join(', ')}`)
    const shell = oneOf('shell', name, shells)
    io.stdout.write(scripts[shell](`${quote(io.program)} ${completeCommand} --`))
    return 0
  },
}
